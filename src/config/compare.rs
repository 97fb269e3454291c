//! What is different between two configurations, key by key.

use super::{Config, check};

impl Config {
    /// The keys, with their sections, whose values are others in `other`; in alphabetical order.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut keys = Vec::new();
        collect(&self.table(), &other.table(), "", &mut keys);
        keys
    }

    fn table(&self) -> toml::Table {
        // As with `to_toml`: the schema has no value that TOML cannot hold.
        toml::Table::try_from(self).unwrap_or_default()
    }
}

fn collect(one: &toml::Table, other: &toml::Table, prefix: &str, keys: &mut Vec<String>) {
    // Every key has a value in both: the schema leaves none out.
    for (name, value) in one {
        let key = format!("{prefix}{name}");
        match (value, other.get(name)) {
            (toml::Value::Table(one), Some(toml::Value::Table(other)))
                if check::allowed(&key).is_empty() =>
            {
                collect(one, other, &format!("{key}."), keys);
            }
            (value, changed) if Some(value) != changed => keys.push(key),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_key() {
        let text = "[sidecar]\nsession_key = { env = \"K\" }\nmetrics_listen = \"\"\n\
                    [gateway]\nnext_certificate = \"n.pem\"\nnext_key = \"n.key\"\n\
                    [gateway.control]\nmax_stale = \"1h\"\n[demo]\ntick_hz = 60";
        let (one, other) = (Config::default(), Config::parse(text).unwrap());
        let expected = [
            "gateway.control.max_stale",
            "gateway.next_certificate",
            "gateway.next_key",
            "sidecar.metrics_listen",
            "sidecar.session_key",
        ];
        assert_eq!(one.differences(&other), expected);
        assert_eq!(other.differences(&one), expected);
        assert!(one.differences(&one).is_empty());
    }
}
