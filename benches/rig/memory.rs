//! Bytes by a counting allocator: what a structure holds, as it was asked of the allocator (without the allocator's own overhead).

/// Makes something and returns it with the bytes that it holds. Counts this thread alone.
pub(crate) fn held<T>(make: impl FnOnce() -> T) -> (T, f64) {
    let mut made = None;
    let counted = allocation_counter::measure(|| made = Some(make()));
    match made {
        Some(made) => (made, counted.bytes_current as f64),
        // Unreachable: `measure` calls its closure.
        None => panic!("nothing was made"),
    }
}
