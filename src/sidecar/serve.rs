//! The three listeners: what each serves, within which bounds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::{
    server::NamedService,
    service::{LayerExt, Routes, RoutesBuilder},
    transport::Server,
};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, HealthService},
};

use crate::{
    clock::Clock,
    control,
    proto::{
        DESCRIPTORS, admin_service_server::AdminServiceServer,
        auth_service_server::AuthServiceServer,
    },
    rpc, tls,
};

use super::{
    Addresses, Running, SidecarConfig, StartError,
    admin::{AdminApi, LONGEST_WAIT},
    auth::AuthApi,
    host::Host,
    severed::Severable,
};
