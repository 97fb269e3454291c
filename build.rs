//! Compiles the gRPC services from `proto/` in Rust (protox), so that no `protoc` is needed on the machine.

use std::path::Path;

/// Messages with a secret in them.
const SECRET: [&str; 15] = [
    "TransportKey",
    "ConnectTicket",
    "LoginResponse",
    "CreateSessionResponse",
    "RefreshRequest",
    "RefreshResponse",
    "LogoutRequest",
    "OtpLogin",
    "MagicLinkLogin",
    "PasswordLogin",
    "OidcLogin",
    "ConsumeVerificationRequest",
    "RequestOtpRequest",
    "RequestOtpResponse",
    "RequestVerificationRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "auth", "admin", "control", "store"]
        .map(|name| format!("proto/tickgate/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    // The reflection service answers from these very descriptors.
    std::fs::write(
        Path::new(&out).join("tickgate.v1.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        // These hold secrets: src/proto.rs says how they are shown.
        .skip_debug(SECRET.map(|name| format!(".tickgate.v1.{name}")))
        .compile_fds(descriptors)?;
    Ok(())
}
