//! amqps with a RabbitMQ that asks for client certificates.

use std::sync::OnceLock;

use super::check;
use crate::support::certificates::{Authority, Mounted, Pair};
use crate::support::rabbit::{Node, Vhost, free_port};
use crate::support::tls_server::TlsServer;

/// The user that a client certificate stands for.
const USER: &str = "worker-7";

/// A node that speaks TLS on one port and plain AMQP on another.
pub(super) struct Secured {
    pub(super) node: Node,
    pub(super) port: u16,
    pub(super) authority: Authority,
    stranger: Authority,
}

impl Secured {
    /// The node that these tests share.
    pub(super) fn shared() -> &'static Self {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let authority = Authority::new("authority of the broker");
        let shown = authority.server(&["127.0.0.1", "rabbit.example"]);
        let port = free_port();
        let files = [
            ("ca.pem", authority.pem.as_str()),
            ("cert.pem", &shown.cert),
            ("key.pem", &shown.key),
        ];
        let configuration = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {{directory}}/ca.pem\n\
             ssl_options.certfile = {{directory}}/cert.pem\n\
             ssl_options.keyfile = {{directory}}/key.pem\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n\
             auth_mechanisms.1 = PLAIN\n\
             auth_mechanisms.2 = EXTERNAL\n\
             ssl_cert_login_from = common_name\n"
        );
        let node = Node::start_with(&configuration, &files, "rabbitmq_auth_mechanism_ssl");
        Self {
            node,
            port,
            authority,
            stranger: Authority::new("nobody knows it"),
        }
    }

    /// A vhost with everything declared in it.
    fn vhost(&self) -> Vhost {
        let vhost = self.node.vhost();
        let declared = std::process::Command::new(env!("CARGO_BIN_EXE_nbi-upgrade"))
            .env_clear()
            .args(["topology", "declare", "--set"])
            .arg(format!("amqp.url={}", vhost.url()))
            .output()
            .unwrap();
        assert!(declared.status.success(), "{declared:?}");
        vhost
    }

    fn url(&self, vhost: &Vhost) -> String {
        format!(
            "amqps://guest:guest@127.0.0.1:{}/{}",
            self.port,
            vhost.name()
        )
    }
}

fn files(ca: &str, client: &Pair) -> Mounted {
    Mounted::new(&[
        ("ca.pem", ca),
        ("client.pem", &client.cert),
        ("client.key", &client.key),
    ])
}

#[test]
fn a_broker_with_a_private_authority_lets_a_client_certificate_in() {
    let secured = Secured::shared();
    let vhost = secured.vhost();
    let client = secured.authority.client(USER);
    // A bundle of several authorities, comments between them, the right one last.
    let bundle = format!(
        "# old\n{}\n# new\n{}",
        secured.stranger.pem, secured.authority.pem
    );
    let files = files(&bundle, &client);
    let keys = [
        ("amqp.ca_file", &*files.text("ca.pem")),
        ("amqp.client_cert_file", &*files.text("client.pem")),
        ("amqp.client_key_file", &*files.text("client.key")),
    ];
    let with = |url: &str| {
        let mut keys = keys.to_vec();
        keys.push(("amqp.url", url));
        check(&keys, "broker")
    };
    assert!(with(&secured.url(&vhost)).starts_with("ok "));
    // The certificate is the user, where the broker takes it for one.
    let nameless = format!(
        "amqps://127.0.0.1:{}/{}?auth_mechanism=external",
        secured.port,
        vhost.name()
    );
    let said = with(&nameless);
    assert!(
        said.contains("403") || said.contains("ACCESS_REFUSED"),
        "{said}"
    );
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    secured.node.user(&vhost, USER, all);
    let said = with(&nameless);
    assert!(said.starts_with("ok "), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_amqps_is_said_with_key_file_and_remedy() {
    let secured = tokio::task::spawn_blocking(Secured::shared).await.unwrap();
    let vhost = secured.vhost();
    let (known, stranger) = (&secured.authority, &secured.stranger);
    let files = files(&known.pem, &known.client(USER));
    let strangers = Mounted::new(&[
        ("ca.pem", &stranger.pem),
        ("client.pem", &stranger.client(USER).cert),
        ("client.key", &stranger.client(USER).key),
        ("pair.key", &known.client("other").key),
        (
            "encrypted.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
        ("empty.pem", "no certificate\n"),
    ]);
    let of_stranger = stranger.client(USER);
    let refused = Mounted::new(&[
        ("client.pem", &of_stranger.cert),
        ("client.key", &of_stranger.key),
    ]);
    let expired = TlsServer::start("127.0.0.1:9", &known.expired(&["127.0.0.1"]), None).await;
    let expired = format!("amqps://guest:guest@127.0.0.1:{}/%2f", expired.port());
    let url = secured.url(&vhost);
    let elsewhere = url.replace("127.0.0.1", "localhost");
    let plain_to_tls = url.replace("amqps", "amqp");
    let tls_to_plain = vhost.url().replace("amqp:", "amqps:");
    let (ca, cert, key) = (
        files.text("ca.pem"),
        files.text("client.pem"),
        files.text("client.key"),
    );
    let with = |url: &str, ca: &str, cert: &str, key: &str| {
        let mut keys = vec![("amqp.url", url)];
        for (name, value) in [
            ("amqp.ca_file", ca),
            ("amqp.client_cert_file", cert),
            ("amqp.client_key_file", key),
        ] {
            if !value.is_empty() {
                keys.push((name, value));
            }
        }
        check(&keys, "broker")
    };
    let other_ca = strangers.text("ca.pem");
    let cases: [(&str, String, Vec<&str>); 12] = [
        (
            "no authority",
            with(&url, "", &cert, &key),
            vec!["set amqp.ca_file"],
        ),
        (
            "wrong authority",
            with(&url, &other_ca, &cert, &key),
            vec!["signed by no authority in amqp.ca_file", &other_ca],
        ),
        (
            "wrong host",
            with(&elsewhere, &ca, &cert, &key),
            vec![
                "not for \"localhost\" but for 127.0.0.1, rabbit.example",
                "amqp.url",
            ],
        ),
        (
            "expired",
            with(&expired, &ca, "", ""),
            vec!["expired on 2021-01-01", "renewed"],
        ),
        (
            "no client certificate",
            with(&url, &ca, "", ""),
            vec![
                "asks for a client certificate",
                "amqp.client_cert_file",
                "amqp.client_key_file",
            ],
        ),
        (
            "a stranger's certificate",
            with(
                &url,
                &ca,
                &refused.text("client.pem"),
                &refused.text("client.key"),
            ),
            vec!["does not accept our certificate in amqp.client_cert_file"],
        ),
        (
            "plain to a TLS port",
            with(&plain_to_tls, "", "", ""),
            vec!["amqps://"],
        ),
        (
            "TLS to a plain port",
            with(&tls_to_plain, &ca, "", ""),
            vec!["does not speak TLS on this port", "amqp://"],
        ),
        (
            "no certificate in it",
            with(&url, &strangers.text("empty.pem"), &cert, &key),
            vec!["amqp.ca_file", "empty.pem", "holds no certificate"],
        ),
        (
            "an encrypted key",
            with(&url, &ca, &cert, &strangers.text("encrypted.key")),
            vec![
                "amqp.client_key_file",
                "encrypted.key",
                "without a passphrase",
            ],
        ),
        (
            "a certificate as key",
            with(&url, &ca, &cert, &cert),
            vec!["amqp.client_key_file", "holds no private key"],
        ),
        (
            "another certificate's key",
            with(&url, &ca, &cert, &strangers.text("pair.key")),
            vec!["amqp.client_key_file", "belong together"],
        ),
    ];
    for (case, said, wanted) in cases {
        assert!(said.starts_with("FAIL"), "{case}: {said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{case}: {wanted:?} is not in {said}");
        }
        assert!(!said.contains("guest:guest"), "{case}: {said}");
    }
}
