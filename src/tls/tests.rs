//! TLS over real handshakes: who is let in, who is refused, and what the configurations promise.

use rustls::{ClientConnection, ProtocolVersion, ServerConnection};

use super::*;
use crate::certs::{DevCerts, quic_identity};

/// Runs a handshake in memory; gives both ends, or the first error.
fn handshake(
    server: ServerConfig,
    client: ClientConfig,
    name: &'static str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((server, client))
}

#[test]
fn the_cheap_suite_is_first() {
    let provider = provider();
    let suites = &provider.cipher_suites;
    assert_eq!(
        suites[0].suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(suites.len(), rustls::crypto::ring::ALL_CIPHER_SUITES.len());
}

#[test]
fn a_pinned_client_meets_its_gateway_in_tls_1_3_without_tickets() {
    let identity = quic_identity("game.example").unwrap();
    let server = quic_server_config(&identity).unwrap();
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    let client = pinned_quic_client_config(vec![[0; 32], identity.fingerprint()]).unwrap();
    // The name is none of the certificate's: a pin needs no name.
    let (server, client) = handshake(server, client, "elsewhere.example").unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(client.tls13_tickets_received(), 0);
    assert_eq!(
        server.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
}

#[test]
fn our_order_of_suites_wins_over_the_clients() {
    let identity = quic_identity("localhost").unwrap();
    let mut stock =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedServer {
                pins: vec![identity.fingerprint()],
                algorithms: provider().signature_verification_algorithms,
            }))
            .with_no_client_auth();
    stock.alpn_protocols = vec![ALPN.to_vec()];
    let server = quic_server_config(&identity).unwrap();
    let (server, _) = handshake(server, stock, "localhost").unwrap();
    assert_eq!(
        server.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
}

#[test]
fn a_certificate_that_is_not_pinned_is_refused() {
    let (ours, other) = (
        quic_identity("localhost").unwrap(),
        quic_identity("localhost").unwrap(),
    );
    let client = pinned_quic_client_config(vec![ours.fingerprint()]).unwrap();
    let error = handshake(quic_server_config(&other).unwrap(), client, "localhost");
    assert_eq!(
        error.unwrap_err(),
        rustls::CertificateError::ApplicationVerificationFailure.into()
    );
    assert!(matches!(
        pinned_quic_client_config(Vec::new()),
        Err(TlsError::NoPins)
    ));
}

#[test]
fn a_pinned_certificate_without_its_key_is_refused() {
    // Somebody shows the gateway's public certificate, and signs with a key of his own.
    let (gateway, thief) = (
        quic_identity("localhost").unwrap(),
        quic_identity("localhost").unwrap(),
    );
    let stolen = CertifiedKey::new(
        gateway.chain.clone(),
        provider().key_provider.load_private_key(thief.key).unwrap(),
    );
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    server.alpn_protocols = vec![ALPN.to_vec()];
    let client = pinned_quic_client_config(vec![gateway.fingerprint()]).unwrap();
    let error = handshake(server, client, "localhost").unwrap_err();
    assert_eq!(error, rustls::CertificateError::BadSignature.into());
}

#[test]
fn a_client_of_another_protocol_is_refused() {
    let identity = quic_identity("localhost").unwrap();
    let mut client = pinned_quic_client_config(vec![identity.fingerprint()]).unwrap();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let server = quic_server_config(&identity).unwrap();
    assert_eq!(
        handshake(server, client, "localhost").unwrap_err(),
        rustls::Error::NoApplicationProtocol
    );
}

#[test]
fn gateways_and_sidecars_know_each_other_by_their_authority() {
    let certs = DevCerts::generate(&["gw-1".parse().unwrap()]).unwrap();
    let foreign = DevCerts::generate(&["gw-1".parse().unwrap()]).unwrap();
    let control = &certs.gateways[0].control;
    let server = |ca: &DevCerts| {
        rpc_server_config(&certs.sidecar, Some(std::slice::from_ref(&ca.ca))).unwrap()
    };
    let client = |ca: &DevCerts, identity| {
        rpc_client_config(std::slice::from_ref(&ca.ca), identity).unwrap()
    };

    let (server_end, client_end) =
        handshake(server(&certs), client(&certs, Some(control)), "localhost").unwrap();
    assert_eq!(server_end.peer_certificates().unwrap(), &control.chain[..]);
    assert_eq!(client_end.alpn_protocol(), Some(ALPN_HTTP2));

    let refused = |server, client, name| handshake(server, client, name).is_err();
    assert!(refused(server(&certs), client(&certs, None), "localhost"));
    assert!(refused(
        server(&foreign),
        client(&certs, Some(control)),
        "localhost"
    ));
    assert!(refused(
        server(&certs),
        client(&foreign, Some(control)),
        "localhost"
    ));
    assert!(refused(
        server(&certs),
        client(&certs, Some(control)),
        "example.org"
    ));
    // A server's certificate is no client's.
    assert!(refused(
        server(&certs),
        client(&certs, Some(&certs.sidecar)),
        "localhost"
    ));
    // Without a client CA everybody may call.
    let open = rpc_server_config(&certs.sidecar, None).unwrap();
    assert!(handshake(open, client(&certs, None), "127.0.0.1").is_ok());
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (
        quic_identity("localhost").unwrap(),
        quic_identity("localhost").unwrap(),
    );
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = write("a.pem", &crate::certs::certificate_pem(&a.chain[0]));
    let key = write("a.key", &crate::certs::key_pem(&a.key));
    let other = write("b.key", &crate::certs::key_pem(&b.key));
    let junk = write("junk", "-----BEGIN CERTIFICATE-----\n!\n");
    let missing = dir.path().join("missing");

    let loaded = Identity::load(&certificate, &key).unwrap();
    assert_eq!(loaded.fingerprint(), a.fingerprint());
    for (certificate, key, label, named) in [
        (&missing, &key, "unreadable_file", &missing),
        (&certificate, &missing, "unreadable_file", &missing),
        (&junk, &key, "no_certificate", &junk),
        (&key, &key, "no_certificate", &key),
        (&certificate, &junk, "no_key", &junk),
        (&certificate, &other, "key_mismatch", &other),
    ] {
        let error = Identity::load(certificate, key).unwrap_err();
        assert_eq!(error.label(), label);
        assert!(error.to_string().contains(&*named.to_string_lossy()));
    }
    assert!(!format!("{loaded:?}").contains(&crate::certs::key_pem(&a.key)[40..60]));
}
