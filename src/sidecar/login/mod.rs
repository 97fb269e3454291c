//! Login methods: each proves an account in its own way, and yields an identity.

pub(super) mod dev;
