//! The part of JSON Schema that `dist/status.schema.json` uses, and stricter: a field that the schema does not name is a complaint, since the
//! file must tell everything; a keyword that this does not know is a failure, since it would check nothing.

use std::path::Path;

use serde_json::{Map, Value};

/// The schema of `status --format json`.
pub struct Schema(pub Value);

impl Schema {
    /// The file.
    pub fn of_status() -> Schema {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/status.schema.json");
        let text = std::fs::read_to_string(path).unwrap();
        Schema(serde_json::from_str(&text).unwrap())
    }

    /// What is wrong with a document.
    pub fn complaints(&self, document: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(&self.0, document, "status", &mut found);
        found
    }

    /// The values that an enum of a definition allows, without null.
    pub fn words(&self, pointer: &str) -> Vec<String> {
        let all = self.0.pointer(pointer).and_then(Value::as_array);
        all.unwrap_or_else(|| panic!("no {pointer}"))
            .iter()
            .filter_map(|word| Some(word.as_str()?.to_owned()))
            .collect()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        for (keyword, rule) in schema.as_object().unwrap() {
            let good = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => true,
                // Looked at with the properties.
                "required" => true,
                "$ref" => {
                    let pointer = rule.as_str().unwrap().trim_start_matches('#');
                    let target = self.0.pointer(pointer);
                    let target = target.unwrap_or_else(|| panic!("no {pointer}"));
                    self.check(target, value, at, found);
                    true
                }
                "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                    let mut inner = Vec::new();
                    self.check(one, value, at, &mut inner);
                    inner.is_empty()
                }),
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|one| is(one, value)),
                    one => is(one, value),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "const" => rule == value,
                "minimum" => value.as_f64().is_none_or(|it| it >= rule.as_f64().unwrap()),
                "items" => {
                    let items = value.as_array().map_or(&[][..], Vec::as_slice);
                    for (index, item) in items.iter().enumerate() {
                        self.check(rule, item, &format!("{at}[{index}]"), found);
                    }
                    true
                }
                "properties" => {
                    if let Some(fields) = value.as_object() {
                        let known = rule.as_object().unwrap();
                        self.fields(known, &schema["required"], fields, at, found);
                    }
                    true
                }
                other => panic!("the checker does not know {other}"),
            };
            if !good {
                found.push(format!("{at} is {value}, against {keyword} {rule}"));
            }
        }
    }

    fn fields(
        &self,
        known: &Map<String, Value>,
        required: &Value,
        fields: &Map<String, Value>,
        at: &str,
        found: &mut Vec<String>,
    ) {
        for name in required.as_array().unwrap() {
            let name = name.as_str().unwrap();
            if !fields.contains_key(name) {
                found.push(format!("{at} lacks {name}"));
            }
        }
        for (name, field) in fields {
            match known.get(name) {
                Some(schema) => self.check(schema, field, &format!("{at}.{name}"), found),
                None => found.push(format!("{at} has {name}, which the schema does not name")),
            }
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the checker does not know the type {other}"),
    }
}
