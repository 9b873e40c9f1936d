//! The whole of it for others, as an AsyncAPI 3 document with AMQP bindings.
//!
//! Exchanges and queues come from the list that is declared, properties and headers from the functions that write them, payloads from the
//! types: what is documented is what happens.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::ShortString;
use serde_json::{Map, Value, json};

use super::properties;
use super::settings::AmqpSettings;
use super::topology::{self, Argument, Object, Routing};
use crate::message::{DeadLetter, EventKind, EventMessage, schema};

/// Version of the AMQP bindings.
const BINDING: &str = "0.3.0";

/// What may come to the exchange of requests.
const REQUESTS: [&str; 4] = [
    "request",
    "requestInCloudEvent",
    "campaign",
    "campaignInCloudEvent",
];

/// The document for a broker with these settings.
#[must_use]
pub fn document(settings: &AmqpSettings) -> Value {
    let objects = topology::objects(settings);
    let mut schemas = Map::new();
    adopt(&mut schemas, "request", schema::request());
    adopt(&mut schemas, "campaign", schema::campaign());
    adopt(&mut schemas, "order", schema::control());
    adopt(&mut schemas, "event", schema::event());
    let kinds: Vec<&str> = EventKind::ALL
        .iter()
        .map(|kind| kind.event_type())
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "nbi-upgrade",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a worker receives and sends; others do the opposite. `requests` is where upgrades are ordered, `control` \
                where they are cancelled, paused and resumed, `results` where events come out. Channels marked `x-internal` are the workers' own: nobody else publishes or consumes there.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {
            "host": "rabbitmq.example.com:5672",
            "protocol": "amqp",
            "protocolVersion": "0.9.1",
            "description": "RabbitMQ 3.10 or newer, no plugin",
        }},
        "channels": channels(&objects, &settings.prefix, &kinds),
        "operations": {
            "receiveRequest": operation("receive", "requests", &REQUESTS,
                "Takes requests, for one device or for many. Any routing key will do."),
            "receiveOrder": operation("receive", "control", &["order"],
                "Takes orders of operators; each is answered by an event `upgrade.control.accepted` or `upgrade.control.refused`."),
            "sendEvent": operation("send", "results", &kinds,
                "Publishes events, confirmed and mandatory. A final event also goes straight to the queue that `reply_to` of the request names."),
            "sendDeadLetter": operation("send", "dead", &["deadLetter"],
                "Puts away what could not be understood, untouched, with headers that say why."),
        },
        "components": {"messages": messages(), "schemas": schemas},
    })
}

/// An exchange is a channel by the last part of its name, a queue one with `queue.` before it.
fn channels(objects: &[Object], prefix: &str, kinds: &[&str]) -> Value {
    let mut channels = Map::new();
    for object in objects {
        match object {
            Object::Exchange { name, routing } => {
                let short = short(name, prefix);
                let mut channel = json!({
                    "address": null,
                    "messages": references(&carried(short, kinds)),
                    "bindings": {"amqp": {
                        "is": "routingKey",
                        "exchange": {
                            "name": name,
                            "type": match routing { Routing::Topic => "topic", Routing::Fanout => "fanout" },
                            "durable": true,
                            "autoDelete": false,
                        },
                        "bindingVersion": BINDING,
                    }},
                });
                if short == "results" {
                    channel["address"] = json!("{type}.{campaign}");
                    channel["parameters"] = json!({
                        "type": {"enum": kinds, "description": "The event's type"},
                        "campaign": {"description": "`campaign_id` of the request, or -"},
                    });
                }
                channels.insert(short.to_owned(), channel);
            }
            Object::Queue { name, arguments } => {
                let short = short(name, prefix);
                let arguments: Map<String, Value> = arguments
                    .iter()
                    .map(|(name, value)| {
                        let value = match value {
                            Argument::Text(text) => json!(text),
                            Argument::Number(number) => json!(number),
                            Argument::Flag(flag) => json!(flag),
                        };
                        ((*name).to_owned(), value)
                    })
                    .collect();
                let mut channel = json!({
                    "address": name,
                    "bindings": {"amqp": {
                        "is": "queue",
                        "queue": {"name": name, "durable": true, "exclusive": false, "autoDelete": false},
                        "bindingVersion": BINDING,
                    }},
                    "x-arguments": arguments,
                    "x-bound-to": bindings_of(name, objects),
                });
                if matches!(short, "events" | "dead" | "control") {
                    channel["messages"] = references(&carried(short, kinds));
                } else {
                    channel["x-internal"] = json!(true);
                }
                channels.insert(format!("queue.{short}"), channel);
            }
            Object::Binding { .. } => {}
        }
    }
    Value::Object(channels)
}

/// The messages that others may see on an exchange or queue.
fn carried<'a>(short: &str, kinds: &[&'a str]) -> Vec<&'a str> {
    match short {
        "requests" => REQUESTS.to_vec(),
        "control" => vec!["order"],
        "results" | "events" => kinds.to_vec(),
        "dead" => vec!["deadLetter"],
        _ => Vec::new(),
    }
}

fn bindings_of(wanted: &str, objects: &[Object]) -> Value {
    let bound = objects.iter().filter_map(|object| match object {
        Object::Binding {
            queue,
            exchange,
            key,
        } if queue == wanted => Some(json!({"exchange": exchange, "routingKey": key})),
        _ => None,
    });
    bound.collect()
}

fn operation(action: &str, channel: &str, messages: &[&str], description: &str) -> Value {
    let messages: Vec<Value> = messages
        .iter()
        .map(|name| json!({"$ref": format!("#/channels/{channel}/messages/{name}")}))
        .collect();
    let mut operation = json!({
        "action": action,
        "channel": {"$ref": format!("#/channels/{channel}")},
        "messages": messages,
        "description": description,
    });
    if action == "send" {
        operation["bindings"] =
            json!({"amqp": {"deliveryMode": 2, "mandatory": true, "bindingVersion": BINDING}});
    } else {
        operation["bindings"] = json!({"amqp": {"ack": true, "bindingVersion": BINDING}});
    }
    operation
}

fn messages() -> Value {
    let mut messages = asked();
    for kind in EventKind::ALL {
        let properties = properties::of_event(&described(kind));
        let name = kind.event_type().replace("upgrade.", "");
        messages.insert(kind.event_type().to_owned(), json!({
            "title": kind.event_type(),
            "contentType": text(properties.content_type()),
            "payload": {"$ref": format!("#/components/schemas/{name}")},
            "headers": headers(&properties),
            "bindings": {"amqp": {"messageType": text(properties.kind()), "bindingVersion": BINDING}},
            "x-amqp-properties": shown(&properties),
        }));
    }
    let letter = DeadLetter {
        reason: "",
        error: String::new(),
    };
    let dead = properties::of_dead_letter(
        &BasicProperties::default(),
        &letter,
        "",
        "",
        Timestamp::UNIX_EPOCH,
    );
    messages.insert(
        "deadLetter".to_owned(),
        json!({
            "title": "What could not be understood",
            "summary": "The message as it came, with its content type and properties.",
            "payload": {"description": "Anything."},
            "headers": headers(&dead),
        }),
    );
    Value::Object(messages)
}

/// What others send: requests and orders.
fn asked() -> Map<String, Value> {
    let mut messages = Map::new();
    let headers =
        ["traceparent", "tracestate"].map(|name| (name.to_owned(), json!({"type": "string"})));
    let headers = json!({"type": "object", "properties": Map::from_iter(headers)});
    for (name, title) in [
        ("request", "Upgrade request"),
        ("campaign", "Campaign request"),
    ] {
        let plain = json!({"$ref": format!("#/components/schemas/{name}")});
        let in_cloud_event = json!({
            "type": "object",
            "required": ["specversion", "data"],
            "properties": {"specversion": {"const": "1.0"}, "data": plain},
        });
        for (name, content_type, payload) in [
            (name.to_owned(), "application/json", plain),
            (
                format!("{name}InCloudEvent"),
                "application/cloudevents+json",
                in_cloud_event,
            ),
        ] {
            let message = json!({
                "title": title,
                "contentType": content_type,
                "payload": payload,
                "headers": headers,
                "x-amqp-properties": {
                    "content_type": content_type,
                    "delivery_mode": "2, or the request is gone when the broker restarts",
                    "timestamp": "optional; serves where the request has no `requested_at`",
                    "correlation_id": "optional; comes back with every event",
                    "reply_to": "optional; a queue that gets the final event as well",
                },
            });
            messages.insert(name, message);
        }
    }
    messages.insert(
        "order".to_owned(),
        json!({
            "title": "Order",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/order"},
            "headers": headers,
            "x-amqp-properties": {
                "content_type": "application/json",
                "delivery_mode": 2,
                "timestamp": "when it was given, in Unix seconds; else the time at which a worker reads it",
                "message_id": "optional; names the order: every answer to it has the same id",
                "correlation_id": "optional; comes back with the answer",
            },
        }),
    );
    messages
}

/// An event whose values say what stands in their place.
fn described(kind: EventKind) -> EventMessage {
    EventMessage {
        kind,
        id: "`id` of the event".to_owned(),
        routing_key: String::new(),
        event_type: kind.event_type(),
        time: Timestamp::UNIX_EPOCH,
        body: Vec::new(),
        correlation_id: Some("that of the request, where it had one".to_owned()),
        reply_to: None,
        traceparent: Some(String::new()),
        tracestate: Some(String::new()),
    }
}

fn shown(properties: &BasicProperties) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: &Option<ShortString>| {
        if value.is_some() {
            shown.insert(name.to_owned(), json!(text(value)));
        }
    };
    put("content_type", properties.content_type());
    put("message_id", properties.message_id());
    put("type", properties.kind());
    put("app_id", properties.app_id());
    put("correlation_id", properties.correlation_id());
    if let Some(mode) = properties.delivery_mode() {
        shown.insert("delivery_mode".to_owned(), json!(mode));
    }
    if properties.timestamp().is_some() {
        shown.insert(
            "timestamp".to_owned(),
            json!("`time` of the event, in Unix seconds"),
        );
    }
    Value::Object(shown)
}

fn headers(properties: &BasicProperties) -> Value {
    let names = properties
        .headers()
        .iter()
        .flat_map(|headers| headers.inner().keys());
    let texts = names.map(|name| (name.as_str().to_owned(), json!({"type": "string"})));
    json!({"type": "object", "properties": Map::from_iter(texts)})
}

fn text(value: &Option<ShortString>) -> &str {
    value.as_ref().map_or("", ShortString::as_str)
}

fn references(messages: &[&str]) -> Value {
    let all = messages.iter().map(|name| {
        (
            (*name).to_owned(),
            json!({"$ref": format!("#/components/messages/{name}")}),
        )
    });
    Value::Object(all.collect())
}

fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(name)
}

/// Takes a JSON Schema in, its definitions as schemas beside it.
fn adopt(schemas: &mut Map<String, Value>, name: &str, mut schema: Value) {
    repoint(&mut schema);
    if let Value::Object(entries) = &mut schema {
        entries.remove("$schema");
        entries.remove("$id");
        if let Some(Value::Object(definitions)) = entries.remove("definitions") {
            schemas.extend(definitions);
        }
    }
    schemas.insert(name.to_owned(), schema);
}

fn repoint(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::String(reference)) = entries.get_mut("$ref") {
                *reference = reference.replace("#/definitions/", "#/components/schemas/");
            }
            entries.values_mut().for_each(repoint);
        }
        Value::Array(items) => items.iter_mut().for_each(repoint),
        _ => {}
    }
}
