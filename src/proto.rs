//! gRPC messages and services, generated from `proto/` at build time.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

tonic::include_proto!("tickgate.v1");

/// The file descriptors of all services, for the reflection service.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tickgate.v1");
