//! Playing against gateways of a few lines.
