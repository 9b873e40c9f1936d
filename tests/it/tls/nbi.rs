//! https with an NBI behind a TLS server that asks for client certificates.

use super::check;
use crate::support::certificates::{Authority, Mounted};
use crate::support::processes::Simulator;
use crate::support::tls_server::TlsServer;

const CREDENTIALS: [(&str, &str); 2] = [("nbi.username", "nbi"), ("nbi.password", "nbi")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_tls_is_said_with_key_file_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = Simulator::start(directory.path(), &["--devices", "1"]);
    let known = Authority::new("authority of the NBI");
    let stranger = Authority::new("nobody knows it");
    let shown = known.server(&["127.0.0.1", "acs.example"]);
    let (client, of_stranger) = (known.client("worker"), stranger.client("worker"));
    let bundle = format!("{}# the one that counts\n{}", stranger.pem, known.pem);
    let files = Mounted::new(&[
        ("ca.pem", &bundle),
        ("other-ca.pem", &stranger.pem),
        ("client.pem", &client.cert),
        ("client.key", &client.key),
        ("stranger.pem", &of_stranger.cert),
        ("stranger.key", &of_stranger.key),
        ("empty.pem", "nothing\n"),
    ]);
    let target = simulator.address();
    let strict = TlsServer::start(target, &shown, Some(&known)).await;
    let open = TlsServer::start(target, &shown, None).await;
    let expired = TlsServer::start(target, &known.expired(&["127.0.0.1"]), None).await;
    let https = |port: u16| format!("https://127.0.0.1:{port}");
    let (strict_url, open_url) = (https(strict.port()), https(open.port()));
    let with = |url: &str, ca: &str, cert: &str, key: &str| {
        let mut keys = CREDENTIALS.to_vec();
        let (ca, cert, key) = (files.text(ca), files.text(cert), files.text(key));
        keys.extend([("nbi.url", url), ("nbi.allow_http", "true")]);
        for (name, value) in [
            ("nbi.ca_file", &ca),
            ("nbi.client_cert_file", &cert),
            ("nbi.client_key_file", &key),
        ] {
            if !value.ends_with('/') {
                keys.push((name, value));
            }
        }
        check(&keys, "NBI")
    };
    for said in [
        with(&strict_url, "ca.pem", "client.pem", "client.key"),
        with(&open_url, "ca.pem", "", ""),
    ] {
        assert!(said.starts_with("ok "), "{said}");
    }
    let wrong_host = open_url.replace("127.0.0.1", "localhost");
    let plain_to_tls = open_url.replace("https", "http");
    let tls_to_plain = format!("https://{target}");
    let cases: [(&str, String, Vec<&str>); 11] = [
        (
            "no authority",
            with(&open_url, "", "", ""),
            vec!["set nbi.ca_file"],
        ),
        (
            "wrong authority",
            with(&open_url, "other-ca.pem", "", ""),
            vec!["signed by no authority in nbi.ca_file", "other-ca.pem"],
        ),
        (
            "wrong host",
            with(&wrong_host, "ca.pem", "", ""),
            vec![
                "not for \"localhost\" but for 127.0.0.1, acs.example",
                "nbi.url",
            ],
        ),
        (
            "expired",
            with(&https(expired.port()), "ca.pem", "", ""),
            vec!["expired on 2021-01-01", "renewed"],
        ),
        (
            "no client certificate",
            with(&strict_url, "ca.pem", "", ""),
            vec![
                "asks for a client certificate",
                "nbi.client_cert_file",
                "nbi.client_key_file",
            ],
        ),
        (
            "a stranger's certificate",
            with(&strict_url, "ca.pem", "stranger.pem", "stranger.key"),
            vec![
                "does not accept our certificate in nbi.client_cert_file",
                "stranger.pem",
            ],
        ),
        (
            "plain to a TLS port",
            with(&plain_to_tls, "", "", ""),
            vec!["https://", "nbi.url"],
        ),
        (
            "TLS to a plain port",
            with(&tls_to_plain, "ca.pem", "", ""),
            vec!["does not speak TLS on this port", "http://"],
        ),
        (
            "no certificate in it",
            with(&open_url, "empty.pem", "", ""),
            vec!["nbi.ca_file", "empty.pem", "holds no certificate"],
        ),
        (
            "no key in it",
            with(&strict_url, "ca.pem", "client.pem", "client.pem"),
            vec!["nbi.client_key_file", "holds no private key"],
        ),
        (
            "another certificate's key",
            with(&strict_url, "ca.pem", "client.pem", "stranger.key"),
            vec![
                "nbi.client_key_file",
                "stranger.key",
                "do not belong together",
            ],
        ),
    ];
    for (case, said, wanted) in cases {
        assert!(said.starts_with("FAIL"), "{case}: {said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{case}: {wanted:?} is not in {said}");
        }
    }
}
