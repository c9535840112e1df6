//! Migration: what older formats say, in the words of the current one.
//!
//! | format | what the next one says otherwise |
//! |---|---|
//! | 4 | The tables are in a tree of our own. They were in a database: [`redb`](super::redb). |
//! | 3 | Ports that follow each other are one in an endpoint's row. |
//! | 2 | The run state is in tables. It was a snapshot and a journal: [`journal`](super::journal). |
//! | 1 | A zone says whether its containers reach each other: `icc`. An isolated port is an element of the ruleset (`instance`, `port`), and was a flag of a link (`link`). |
//!
//! A file is put into the current format by the next command that changes something.

use mydocker_core::Instance;
use serde_json::{Value, json};

/// Turns a payload of that format into one of the current.
pub(super) fn migrate(format: u64, payload: &mut Value, instance: Instance) {
    if format < 2 {
        from_1(payload, instance);
    }
}

/// Objects are named by their kind wherever they are: in ops, and in what an undo left over.
fn from_1(value: &mut Value, instance: Instance) {
    match value {
        Value::Array(values) => {
            for value in values {
                from_1(value, instance);
            }
        }
        Value::Object(fields) => {
            if let Some(Value::Object(zone)) = fields.get_mut("zone") {
                zone.entry("icc").or_insert(Value::Bool(true));
            }
            if let Some(isolated) = fields.get_mut("isolated")
                && let Some(link) = isolated.get("link")
            {
                *isolated = json!({ "instance": instance, "port": link });
            }
            for value in fields.values_mut() {
                from_1(value, instance);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
