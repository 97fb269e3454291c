//! Checks a report against report.schema.json: the part of JSON Schema 2020-12 that this schema uses, and no other. A keyword that is
//! not known here is a violation, so that the schema cannot say what nobody checks.

use serde_json::{Map, Value};

/// What in `report` is not as the schema says, as "path: what"; empty if nothing.
pub fn violations(report: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("../../report.schema.json"))
        .expect("the schema is JSON");
    let mut found = Vec::new();
    Checker { root: &schema }.check(&schema, report, "$", &mut found);
    found
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        let schema = schema.as_object().expect("a schema is an object");
        for (keyword, rule) in schema {
            match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => {}
                "$ref" => self.check(self.definition(rule), value, path, found),
                "type" if !is_of_type(value, rule) => {
                    found.push(format!("{path}: not of type {rule}"));
                }
                "const" if value != rule => found.push(format!("{path}: not {rule}")),
                "enum" if !items(rule).contains(value) => {
                    found.push(format!("{path}: none of {rule}"));
                }
                "minimum" if value.as_f64() < rule.as_f64() => {
                    found.push(format!("{path}: below {rule}"));
                }
                "type" | "const" | "enum" | "minimum" => {}
                "items" => {
                    for (i, item) in items(value).iter().enumerate() {
                        self.check(rule, item, &format!("{path}[{i}]"), found);
                    }
                }
                "anyOf" => self.check_any(items(rule), value, path, found),
                "required" => {
                    for name in items(rule).iter().filter_map(Value::as_str) {
                        if value.as_object().is_some_and(|o| !o.contains_key(name)) {
                            found.push(format!("{path}: `{name}` is missing"));
                        }
                    }
                }
                "properties" | "additionalProperties" => {}
                other => found.push(format!("the schema's keyword `{other}` is not checked")),
            }
        }
        if let Some(object) = value.as_object() {
            self.check_members(schema, object, path, found);
        }
    }

    fn check_members(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        path: &str,
        found: &mut Vec<String>,
    ) {
        for (name, member) in object {
            let path_of_member = format!("{path}.{name}");
            let known = schema.get("properties").and_then(|known| known.get(name));
            match (known, schema.get("additionalProperties")) {
                (Some(rule), _) => self.check(rule, member, &path_of_member, found),
                (None, Some(Value::Bool(false))) => {
                    found.push(format!("{path}: `{name}` is unknown"));
                }
                (None, Some(rule)) => self.check(rule, member, &path_of_member, found),
                (None, None) => {}
            }
        }
    }

    fn check_any(&self, schemas: &[Value], value: &Value, path: &str, found: &mut Vec<String>) {
        let mut closest: Option<Vec<String>> = None;
        for schema in schemas {
            let mut violations = Vec::new();
            self.check(schema, value, path, &mut violations);
            if closest.as_ref().is_none_or(|c| violations.len() < c.len()) {
                closest = Some(violations);
            }
        }
        found.extend(closest.unwrap_or_default());
    }

    fn definition(&self, reference: &Value) -> &Value {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        pointer
            .and_then(|pointer| self.root.pointer(pointer))
            .expect("a $ref names a definition of this schema")
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_of_type(value: &Value, rule: &Value) -> bool {
    if let Some(choices) = rule.as_array() {
        return choices.iter().any(|choice| is_of_type(value, choice));
    }
    match rule.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}
