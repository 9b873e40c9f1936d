//! Reading streams of a real broker: from everywhere, to a mark, to the present end, across a lost connection, with read permission only.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use nbi_upgrade::driver::amqp::stream::{Record, Start, Stream, StreamReader};
use nbi_upgrade::driver::amqp::{AmqpSettings, topology};
use secrecy::SecretString;

use crate::support::rabbit::{Client, Node, Vhost};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(url: &str) -> AmqpSettings {
    AmqpSettings {
        urls: vec![SecretString::from(url.to_owned())],
        ..AmqpSettings::default()
    }
}

async fn bench() -> (Vhost, Client) {
    let vhost = Node::shared().vhost();
    topology::declare_once(&settings(&vhost.url()))
        .await
        .expect("the broker is up");
    let client = vhost.client().await;
    (vhost, client)
}

async fn read(url: &str, stream: Stream, start: Start) -> StreamReader {
    StreamReader::connect(settings(url), stream, start)
        .await
        .expect("the stream stands")
}

fn at(time: Timestamp) -> BasicProperties {
    BasicProperties::default()
        .with_timestamp(u64::try_from(time.as_second()).unwrap())
        .with_message_id("id".into())
        .with_type("upgrade.accepted".into())
        .with_correlation_id("correlation".into())
        .with_content_type("application/cloudevents+json".into())
        .with_app_id("nbi-upgrade".into())
}

async fn publish(client: &Client, text: &str, time: Timestamp) {
    client
        .publish(
            "upgrade.results",
            "upgrade.accepted.-",
            text.as_bytes(),
            at(time),
        )
        .await;
}

#[tokio::test]
async fn the_present_end_is_found_while_others_go_on_writing() {
    let (vhost, client) = bench().await;
    publish(&client, "before", Timestamp::now()).await;
    let mut reader = read(&vhost.url(), Stream::Events, Start::First).await;
    let writing = tokio::spawn(async move {
        loop {
            publish(&client, "meanwhile", Timestamp::now()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let end = tokio::time::timeout(PATIENCE, reader.end()).await;
    writing.abort();
    let end = end.expect("it ends").expect("the stream stands");
    assert!(end > 0, "what was there before is seen");
}

async fn next(reader: &mut StreamReader) -> Record {
    tokio::time::timeout(PATIENCE, reader.next())
        .await
        .expect("a message in time")
        .expect("the connection stands")
}

/// Everything that is there now, as text.
async fn present(reader: &mut StreamReader) -> Vec<String> {
    let end = reader.end().await.unwrap();
    let mut texts = Vec::new();
    while let Some(record) = reader.next_before(end).await.unwrap() {
        texts.push(text(&record));
    }
    texts
}

fn text(record: &Record) -> String {
    String::from_utf8(record.body.clone()).unwrap()
}

#[tokio::test]
async fn a_stream_is_read_from_everywhere_to_its_present_end_and_followed() {
    let (vhost, client) = bench().await;
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let url = vhost.url();

    // Nothing is there yet.
    for start in [
        Start::First,
        Start::Last,
        Start::Next,
        Start::Offset(0),
        Start::Time(now - hour),
    ] {
        let mut reader = read(&url, Stream::Events, start).await;
        assert_eq!(
            present(&mut reader).await,
            Vec::<String>::new(),
            "{start:?}"
        );
        reader.close().await;
    }

    for (number, time) in [
        (0, now - hour - hour),
        (1, now - hour),
        (2, now - hour),
        (3, now),
    ] {
        publish(&client, &format!("m{number}"), time).await;
    }
    let all = ["m0", "m1", "m2", "m3"];
    for (start, expected) in [
        (Start::First, &all[..]),
        (Start::Last, &all[3..]),
        (Start::Next, &all[4..]),
        (Start::Offset(2), &all[2..]),
        (Start::Offset(4), &all[4..]),
        (Start::Time(now - hour), &all[1..]),
        (Start::Time(now + hour), &all[4..]),
    ] {
        let mut reader = read(&url, Stream::Events, start).await;
        let texts = present(&mut reader).await;
        assert!(
            texts.ends_with(
                &expected
                    .iter()
                    .map(|text| (*text).to_owned())
                    .collect::<Vec<_>>()
            ),
            "{start:?}: {texts:?}"
        );
        // The last ones may come in a group.
        assert!(
            texts.len() == expected.len() || start == Start::Last,
            "{start:?}: {texts:?}"
        );
        reader.close().await;
    }

    let mut reader = read(&url, Stream::Events, Start::First).await;
    assert_eq!(present(&mut reader).await, all);
    publish(&client, "m4", now).await;
    let record = next(&mut reader).await;
    assert_eq!((text(&record).as_str(), record.offset), ("m4", 4));
    assert_eq!(record.published_at.unwrap().as_second(), now.as_second());
    assert_eq!(record.routing_key, "upgrade.accepted.-");
    let texts = [
        &record.message_id,
        &record.kind,
        &record.correlation_id,
        &record.content_type,
        &record.app_id,
    ]
    .map(|text| text.as_deref().unwrap_or_default());
    assert_eq!(
        texts,
        [
            "id",
            "upgrade.accepted",
            "correlation",
            "application/cloudevents+json",
            "nbi-upgrade"
        ]
    );
    reader.close().await;
}

#[tokio::test]
async fn a_long_stream_is_read_to_the_end_with_read_permission_only() {
    const COUNT: usize = 3_000;
    let (vhost, client) = bench().await;
    let now = Timestamp::now();
    let mut publishing = tokio::task::JoinSet::new();
    let client = std::sync::Arc::new(client);
    for task in 0..20 {
        let client = std::sync::Arc::clone(&client);
        publishing.spawn(async move {
            for number in 0..COUNT / 20 {
                publish(&client, &format!("{task}-{number}"), now).await;
            }
        });
    }
    publishing.join_all().await;
    let reader_only = r#"{"configure":"^$","write":"^$","read":"^upgrade\\.(events|control)$"}"#;
    let url = Node::shared().user(&vhost, "reader", reader_only);
    let mut reader = read(&url, Stream::Events, Start::First).await;
    let texts = present(&mut reader).await;
    assert_eq!(texts.len(), COUNT);
    assert_eq!(reader.position(), Some(COUNT as u64));
    let distinct: std::collections::BTreeSet<_> = texts.into_iter().collect();
    assert_eq!(distinct.len(), COUNT);
    reader.close().await;

    let refused = Node::shared().user(
        &vhost,
        "stranger",
        r#"{"configure":"^$","write":"^$","read":"^$"}"#,
    );
    let error = StreamReader::connect(settings(&refused), Stream::Events, Start::First)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the user needs read permission on upgrade.events"),
        "{error}"
    );
}

#[tokio::test]
async fn a_reader_that_lost_its_connection_goes_on_where_it_stood() {
    let (vhost, client) = bench().await;
    let now = Timestamp::now();
    for number in 0..3 {
        publish(&client, &format!("m{number}"), now).await;
    }
    let url = Node::shared().user(
        &vhost,
        "resumer",
        r#"{"configure":"^$","write":"^$","read":".*"}"#,
    );
    let mut reader = read(&url, Stream::Events, Start::First).await;
    for expected in ["m0", "m1"] {
        assert_eq!(text(&next(&mut reader).await), expected);
    }
    let node = Node::shared();
    let closed = tokio::task::spawn_blocking({
        let vhost = vhost.clone();
        move || {
            // The management API learns of connections with a delay.
            for _ in 0..100 {
                if node.close_connections(&vhost) >= 2 {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            false
        }
    });
    assert!(closed.await.unwrap());
    // What was sent ahead may still come, then the loss shows.
    let mut came = vec!["m0".to_owned(), "m1".to_owned()];
    let lost = async {
        loop {
            match reader.next().await {
                Ok(record) => came.push(text(&record)),
                Err(error) => break error,
            }
        }
    };
    tokio::time::timeout(PATIENCE, lost)
        .await
        .expect("a lost connection is noticed");
    let client = vhost.client().await;
    publish(&client, "m3", now).await;
    reader.resume().await.unwrap();
    while came.len() < 4 {
        came.push(text(&next(&mut reader).await));
    }
    assert_eq!(came, ["m0", "m1", "m2", "m3"]);
    reader.close().await;
}

#[tokio::test]
async fn commands_are_read_up_to_a_mark_of_ones_own() {
    let (vhost, client) = bench().await;
    for number in 0..500 {
        let body = format!("command {number}");
        client
            .publish(
                "upgrade.control",
                "",
                body.as_bytes(),
                BasicProperties::default(),
            )
            .await;
    }
    let mut reader = read(&vhost.url(), Stream::Control, Start::First).await;
    let mark = BasicProperties::default().with_message_id("my mark".into());
    client.publish("upgrade.control", "", b"{}", mark).await;
    let mut count = 0;
    loop {
        let record = next(&mut reader).await;
        if record.message_id.as_deref() == Some("my mark") {
            break;
        }
        count += 1;
    }
    assert_eq!(count, 500);
    reader.close().await;
}
