//! What an OCI runtime is told of another program in a container: the `process` of its bundle, changed.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::container::{Exec, exec::User};

/// The text of a `process.json` for the container whose bundle is `bundle`.
pub(crate) fn text(bundle: &Path, exec: &Exec) -> anyhow::Result<Vec<u8>> {
    let config = read(&bundle.join("config.json"))?;
    serde_json::to_vec(&process(&config["process"], exec)?)
        .context("can't write a process's config")
}

/// Whether the process that is described at `path` gets a terminal.
pub(crate) fn has_terminal(path: &Path) -> anyhow::Result<bool> {
    Ok(read(path)?["terminal"] == true)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let what = || format!("can't read {}", path.display());
    let text = fs::read(path).with_context(what)?;
    serde_json::from_slice(&text).with_context(what)
}

/// Everything that was not asked for otherwise is as for the first one, what it may not do above all.
fn process(first: &Value, exec: &Exec) -> anyhow::Result<Value> {
    let mut process = first.clone();
    let damaged = || anyhow!("the container's bundle is damaged: it has no process");
    let all = process.as_object_mut().ok_or_else(damaged)?;
    all.insert("terminal".to_owned(), json!(exec.terminal));
    all.insert("args".to_owned(), json!(exec.command));
    if let Some(workdir) = &exec.workdir {
        all.insert("cwd".to_owned(), json!(workdir));
    }
    let first_env = first["env"].as_array().into_iter().flatten();
    let first_env = first_env.filter_map(Value::as_str).map(str::to_owned);
    all.insert("env".to_owned(), json!(env(first_env.collect(), exec)));
    if let Some(User { uid, gid }) = exec.user {
        all.insert("user".to_owned(), json!({ "uid": uid, "gid": gid }));
        if uid != 0 {
            drop_capabilities(all.get_mut("capabilities"));
        }
    }
    Ok(process)
}

/// Who is not root has none in effect; the bound of what can be had stays.
fn drop_capabilities(capabilities: Option<&mut Value>) {
    let sets = capabilities
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten();
    for (_, set) in sets.filter(|(name, _)| *name != "bounding") {
        *set = json!([]);
    }
}

/// A later variable takes the place of an earlier one.
fn env(mut env: Vec<String>, exec: &Exec) -> Vec<String> {
    let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    if exec.terminal && !env.iter().any(|variable| key(variable) == "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &exec.env {
        env.retain(|have| key(have) != key(variable));
        env.push(variable.clone());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Value {
        json!({
            "terminal": true, "args": ["sh"], "cwd": "/srv", "env": ["PATH=/bin", "A=1"],
            "user": { "uid": 0, "gid": 0 }, "noNewPrivileges": true,
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"] },
        })
    }

    #[test]
    fn what_is_not_asked_for_is_as_for_the_first() {
        let exec = Exec {
            command: vec!["id".into()],
            ..Exec::default()
        };
        let mut expected = first();
        expected["terminal"] = json!(false);
        expected["args"] = json!(["id"]);
        assert_eq!(process(&first(), &exec).unwrap(), expected);
        assert!(process(&Value::Null, &exec).is_err());
    }

    #[test]
    fn what_is_asked_for_takes_its_place() {
        let exec = Exec {
            command: vec!["id".into()],
            env: vec!["A=2=3".into(), "B=".into()],
            workdir: Some("/tmp".into()),
            user: Some("1000:7".parse().unwrap()),
            terminal: true,
            ..Exec::default()
        };
        let process = process(&first(), &exec).unwrap();
        let env = json!(["PATH=/bin", "TERM=xterm", "A=2=3", "B="]);
        assert_eq!((&process["env"], &process["cwd"]), (&env, &json!("/tmp")));
        assert_eq!(process["user"], json!({ "uid": 1000, "gid": 7 }));
        let capabilities = json!({ "bounding": ["CAP_KILL"], "effective": [] });
        assert_eq!(process["capabilities"], capabilities);
        assert_eq!(process["noNewPrivileges"], true);
    }

    #[test]
    fn users_are_numbers() {
        let user = |text: &str| text.parse::<User>().map(|user| (user.uid, user.gid));
        assert_eq!(user("1000").unwrap(), (1000, 0));
        assert_eq!(user("0:5").unwrap(), (0, 5));
        for bad in [
            "",
            "nobody",
            "1:",
            ":1",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "1:2:3",
        ] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }
}
