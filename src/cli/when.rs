//! Times for people: the operator's own time zone, and how long ago or how soon.

use std::time::Duration;

use tickgate::clock::Timestamp;

/// "2026-11-22 07:15:00+01:00 (3 min ago)".
pub(super) fn when(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time.local(), relative(time, now))
}

/// "3 min ago", "in 2 h".
pub(super) fn relative(time: Timestamp, now: Timestamp) -> String {
    if time > now {
        format!("in {}", span(time.since(now)))
    } else {
        match now.since(time) {
            little if little < Duration::from_secs(1) => "just now".to_owned(),
            past => format!("{} ago", span(past)),
        }
    }
}

/// One unit, rounded down: nobody reads more of it.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_one_unit() {
        let now = Timestamp(1_000_000_000);
        for (seconds, told) in [
            (0, "just now"),
            (59, "59 s ago"),
            (61, "1 min ago"),
            (7_300, "2 h ago"),
            (200_000, "2 d ago"),
        ] {
            let then = now.before(Duration::from_secs(seconds));
            assert_eq!(relative(then, now), told);
        }
        assert_eq!(
            relative(now.after(Duration::from_secs(90)), now),
            "in 1 min"
        );
        assert!(when(now, now).ends_with(" (just now)"));
    }
}
