//! What the certificates say, and what is on disk when something goes wrong.

use super::*;

fn ids(names: &[&str]) -> Vec<GatewayId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn what_is_written_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("certs");
    let certs = DevCerts::generate(&ids(&["gw-1", "gw-2"])).unwrap();
    certs.write_to(&directory).unwrap();
    let layout = Layout::new(&directory);
    assert_eq!(
        crate::tls::load_certificates(&layout.ca()).unwrap(),
        std::slice::from_ref(&certs.ca)
    );
    let gateway = &certs.gateways[1];
    for (files, made) in [
        (layout.sidecar(), &certs.sidecar),
        (layout.admin(), &certs.admin),
        (layout.backend(), &certs.backend),
        (layout.gateway(&gateway.id), &gateway.control),
        (layout.gateway_quic(&gateway.id), &gateway.quic),
    ] {
        let loaded = files.load().unwrap();
        assert_eq!(loaded.chain, made.chain);
        assert_eq!(loaded.key, made.key);
    }
    let hash = fs::read_to_string(directory.join("gateway-gw-2-quic.sha256")).unwrap();
    let digits: String = gateway.quic.fingerprint().iter().map(hexadecimal).collect();
    assert_eq!(hash.trim_end(), digits);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1 + 3 * 2 + 2 * 5);
}

/// 2026-01-01.
const NOW: Timestamp = Timestamp(1_767_225_600_000);

#[test]
fn an_interrupted_write_is_not_complete() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let gateways = ids(&["gw-1", "gw-2"]);
    let certs = DevCerts::generate(&gateways).unwrap();
    assert!(!layout.is_complete(&gateways, NOW));
    certs.write_to(dir.path()).unwrap();
    assert!(layout.is_complete(&gateways, NOW));
    assert!(!layout.is_complete(&ids(&["gw-1", "gw-3"]), NOW));
    assert_eq!(certs.files().unwrap().last().unwrap().name, "ca.pem");

    for file in ["sidecar.key", "admin.pem", "gateway-gw-2-quic.pem"] {
        fs::remove_file(dir.path().join(file)).unwrap();
        assert!(!layout.is_complete(&gateways, NOW), "{file}");
        certs.replace_in(dir.path()).unwrap();
        assert!(layout.is_complete(&gateways, NOW), "{file}");
    }

    // A directory where `ca.pem` should be written cannot be replaced: it stands for whatever interrupts.
    let other = DevCerts::generate(&gateways).unwrap();
    fs::create_dir_all(dir.path().join("ca.pem.new/in the way")).unwrap();
    assert!(other.replace_in(dir.path()).is_err());
    assert!(!layout.is_complete(&gateways, NOW));
}

#[test]
fn certificates_of_another_authority_are_not_complete() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    for names in [["gw-1", "gw-2"], ["gw-3", "gw-2"]] {
        let certs = DevCerts::generate(&ids(&names)).unwrap();
        certs.replace_in(dir.path()).unwrap();
    }
    assert!(layout.is_complete(&ids(&["gw-3", "gw-2"]), NOW));
    assert!(!layout.is_complete(&ids(&["gw-1", "gw-2"]), NOW));
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_only_even_over_a_file_that_was_not() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("sidecar.key");
    fs::write(&key, "old").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    let certs = DevCerts::generate(&ids(&["gw-1"])).unwrap();
    certs.replace_in(dir.path()).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        if path.extension().unwrap() == "key" {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        assert_ne!(path.extension().unwrap(), "new");
    }
    assert_eq!(
        Layout::new(dir.path()).sidecar().load().unwrap().chain,
        certs.sidecar.chain
    );
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("backend.key");
    fs::write(&old, "mine").unwrap();
    let certs = DevCerts::generate(&ids(&["gw-1"])).unwrap();
    let error = certs.write_to(dir.path()).unwrap_err();
    assert_eq!(error.label(), "exists");
    assert!(error.to_string().contains("backend.key"));
    assert_eq!(fs::read_to_string(&old).unwrap(), "mine");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    certs.replace_in(dir.path()).unwrap();
    assert_ne!(fs::read_to_string(&old).unwrap(), "mine");
}

#[test]
fn ids_that_share_a_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for names in [["a", "a-quic"], ["a", "a"]] {
        let certs = DevCerts::generate(&ids(&names)).unwrap();
        let error = certs.write_to(dir.path()).unwrap_err();
        assert_eq!(error.label(), "same_file");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn names_stand_in_the_certificates() {
    let certs = DevCerts::generate(&ids(&["gw-1"])).unwrap();
    let uris = |identity: &Identity| -> Vec<String> {
        webpki::EndEntityCert::try_from(&identity.chain[0])
            .unwrap()
            .valid_uri_names()
            .map(String::from)
            .collect()
    };
    assert_eq!(
        uris(&certs.gateways[0].control),
        ["tickgate://gateway/gw-1"]
    );
    assert_eq!(uris(&certs.admin), ["tickgate://admin/dev"]);
    assert_eq!(uris(&certs.backend), ["tickgate://backend/dev"]);
    assert!(uris(&certs.sidecar).is_empty());
}

#[test]
fn server_names_are_names_or_addresses() {
    for good in ["game.example", "127.0.0.1", "::1"] {
        assert!(quic_identity(good).is_ok(), "{good}");
    }
    for bad in ["", "not a name", "ä"] {
        assert_eq!(quic_identity(bad).unwrap_err().label(), "bad_name");
    }
}
