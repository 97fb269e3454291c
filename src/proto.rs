//! gRPC messages and services, generated from `proto/` at build time.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
// The comments in the proto files are written for readers of those, not as Markdown.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

tonic::include_proto!("tickgate.v1");

/// The file descriptors of all services, for the reflection service.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tickgate.v1");
