//! The description that the system serves of itself, as a switch: its real content is unknown.

use serde_json::{Value, json};

use super::reply::Reply;
use super::semantics::OpenApi;

/// The answer at `/v1/doc/swagger.json`.
pub(super) fn answer(kind: OpenApi) -> Reply {
    match kind {
        OpenApi::Swagger2 => Reply::json(200, &swagger_2()),
        OpenApi::OpenApi3 => Reply::json(200, &openapi_3()),
        OpenApi::Incomplete => Reply::json(200, &incomplete()),
        OpenApi::Absent => Reply::no_such_page(),
    }
}

fn rule() -> Value {
    json!({"type": "object", "properties": {
        "id": {"type": "string"}, "enabled": {"type": "boolean"}, "automatic": {"type": "boolean"},
        "file": {"type": "string"}, "condition": {"type": "object", "properties": {"cpeid": {"type": "string"}}},
        "executions": {"type": "integer"}, "priority": {"type": "integer"}, "author": {"type": "string"},
        "description": {"type": "string"}}})
}

fn result() -> Value {
    json!({"type": "object", "properties": {
        "id": {"type": "string"}, "ts": {"type": "integer"}, "cpeid": {"type": "string"}, "campaignid": {"type": "string"},
        "rule_description": {"type": "string"}, "status": {"type": "boolean"},
        "result": {"type": "object", "properties": {"code": {"type": "integer"}, "message": {"type": "string"}}}}})
}

fn answer_with(row: &str) -> Value {
    json!({"type": "object", "properties": {"code": {"type": "integer"}, "message": {"type": "string"},
        "details": {"type": "array", "items": {"$ref": row}}}})
}

fn search() -> Value {
    json!({"type": "object", "properties": {"search_options": {"type": "object", "properties": {"cpe_id": {"type": "string"}}}}})
}

fn read_parameters() -> Value {
    let mut schema = search();
    schema["properties"]["parameters"] = json!({"type": "array", "items": {"type": "string"}});
    schema
}

/// As the vendor's examples look: base path, body parameters, the odd last segment.
fn swagger_2() -> Value {
    let filter = |name: &str| json!({"in": "query", "name": name, "type": "string"});
    let body = |schema: &str| json!({"in": "body", "name": "body", "schema": {"$ref": schema}});
    let (rule_ref, result_ref) = ("#/definitions/FirmwareRule", "#/definitions/FirmwareResult");
    json!({
        "swagger": "2.0", "info": {"title": "NBI", "version": "1"}, "basePath": "/v1",
        "paths": {
            "/dyn/FirmwareStorage/.*": {
                "get": {"parameters": [filter("campaignid"), filter("limit")], "responses": {"200": {"schema": answer_with(rule_ref)}}},
                "post": {"parameters": [body(rule_ref)], "responses": {"200": {"description": "done"}}},
                "put": {"parameters": [filter("campaignid"), body(rule_ref)], "responses": {"200": {"description": "done"}}},
                "delete": {"parameters": [filter("campaignid")], "responses": {"200": {"description": "done"}}}},
            "/dyn/FirmwareResultStorage/.*": {
                "get": {"parameters": [filter("id")], "responses": {"200": {"schema": answer_with(result_ref)}}}},
            "/method/SendCNR": {
                "post": {"parameters": [{"in": "body", "name": "body", "schema": search()}], "responses": {"200": {"description": "sent"}}}},
            "/method/GetParameterValues": {
                "post": {"parameters": [{"in": "body", "name": "body", "schema": read_parameters()}], "responses": {"200": {"description": "read"}}}},
        },
        "definitions": {"FirmwareRule": rule(), "FirmwareResult": result()},
    })
}

/// The same in the newer form, with templates in paths.
fn openapi_3() -> Value {
    let filter = json!({"in": "query", "name": "id", "schema": {"type": "string"}});
    let content = |schema: Value| json!({"content": {"application/json": {"schema": schema}}});
    let rule_ref = json!({"$ref": "#/components/schemas/FirmwareRule"});
    let done = json!({"200": {"description": "done"}});
    json!({
        "openapi": "3.0.3", "info": {"title": "NBI", "version": "1"}, "servers": [{"url": "/v1"}],
        "paths": {
            "/dyn/FirmwareStorage/{path}": {
                "parameters": [filter],
                "get": {"responses": {"200": content(answer_with("#/components/schemas/FirmwareRule"))}},
                "post": {"requestBody": content(rule_ref.clone()), "responses": done},
                "put": {"requestBody": content(rule_ref), "responses": done},
                "delete": {"responses": done}},
            "/dyn/FirmwareResultStorage/{path}": {
                "parameters": [filter],
                "get": {"responses": {"200": content(answer_with("#/components/schemas/FirmwareResult"))}}},
            "/method/GetParameterValues": {"post": {"requestBody": content(read_parameters()), "responses": done}},
            "/method/{name}": {"post": {"requestBody": content(search()), "responses": done}},
        },
        "components": {"schemas": {"FirmwareRule": rule(), "FirmwareResult": result()}},
    })
}

/// No connection requests, no deleting, rules without `automatic`, results that are found by another name.
fn incomplete() -> Value {
    let mut description = swagger_2();
    if let Some(paths) = description["paths"].as_object_mut() {
        paths.remove("/method/SendCNR");
        if let Some(rules) = paths["/dyn/FirmwareStorage/.*"].as_object_mut() {
            rules.remove("delete");
        }
        paths["/dyn/FirmwareResultStorage/.*"]["get"]["parameters"] =
            json!([{"in": "query", "name": "rule", "type": "string"}]);
    }
    if let Some(fields) = description["definitions"]["FirmwareRule"]["properties"].as_object_mut() {
        fields.remove("automatic");
    }
    description
}
