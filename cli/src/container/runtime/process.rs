//! What an OCI runtime is told of another program in a container: the `process` of its bundle, changed.

use std::{fs, os::fd::AsRawFd, os::fd::OwnedFd, path::Path};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::container::{Exec, user::User};

/// The text of a `process.json` for the container whose bundle is `bundle`; `user` is the one that was
/// asked for. The `embedded` runtime can't keep a program from system calls unless it gains no privileges.
pub(crate) fn text(
    bundle: &Path,
    exec: &Exec,
    user: Option<&User>,
    embedded: bool,
) -> anyhow::Result<Vec<u8>> {
    let config = read(&bundle.join("config.json"))?;
    let mut process = process(&config["process"], exec, user)?;
    if embedded && config["linux"]["seccomp"].is_object() {
        process["noNewPrivileges"] = json!(true);
    }
    serde_json::to_vec(&process).context("can't write a process's config")
}

/// Whether the process that a file describes gets a terminal.
pub(crate) fn has_terminal(file: &OwnedFd) -> anyhow::Result<bool> {
    // Opened anew, so as to leave the file where it is.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(read(Path::new(&path))?["terminal"] == true)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let what = || format!("can't read {}", path.display());
    let text = fs::read(path).with_context(what)?;
    serde_json::from_slice(&text).with_context(what)
}

/// Everything that was not asked for otherwise is as for the first one, what it may not do above all.
fn process(first: &Value, exec: &Exec, user: Option<&User>) -> anyhow::Result<Value> {
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
    all.insert(
        "env".to_owned(),
        json!(env(first_env.collect(), exec, user)),
    );
    if let Some(user) = user {
        let groups = &user.additional_gids;
        let numbers = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": groups });
        all.insert("user".to_owned(), numbers);
        if let Some(Value::Object(sets)) = all.get_mut("capabilities") {
            // As for a first one: root holds what there is to be had, and nobody else holds any.
            let held = match user.uid {
                0 => sets.get("bounding").cloned().unwrap_or_default(),
                _ => json!([]),
            };
            for set in ["effective", "permitted"] {
                sets.insert(set.to_owned(), held.clone());
            }
        }
    }
    Ok(process)
}

/// A later variable takes the place of an earlier one.
fn env(mut env: Vec<String>, exec: &Exec, user: Option<&User>) -> Vec<String> {
    let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    if let Some(user) = user {
        env.retain(|variable| key(variable) != "HOME");
        env.push(format!("HOME={}", user.home));
    }
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
            "terminal": true, "args": ["sh"], "cwd": "/srv", "env": ["PATH=/bin", "HOME=/", "A=1"],
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
        assert_eq!(process(&first(), &exec, None).unwrap(), expected);
        assert!(process(&Value::Null, &exec, None).is_err());
    }

    #[test]
    fn what_is_asked_for_takes_its_place() {
        let exec = Exec {
            command: vec!["id".into()],
            env: vec!["A=2=3".into(), "B=".into()],
            workdir: Some("/tmp".into()),
            terminal: true,
            ..Exec::default()
        };
        let process = process(&first(), &exec, None).unwrap();
        let env = json!(["PATH=/bin", "HOME=/", "TERM=xterm", "A=2=3", "B="]);
        assert_eq!((&process["env"], &process["cwd"]), (&env, &json!("/tmp")));
        assert_eq!(process["noNewPrivileges"], true);
    }

    #[test]
    fn another_user_is_another_in_everything() {
        let as_user = |uid, first: &Value| {
            let user = User {
                uid,
                gid: 7,
                additional_gids: vec![7, 8],
                home: "/home".into(),
            };
            let exec = Exec {
                command: vec!["id".into()],
                ..Exec::default()
            };
            process(first, &exec, Some(&user)).unwrap()
        };
        let web = as_user(1000, &first());
        let groups = json!([7, 8]);
        assert_eq!(
            web["user"],
            json!({ "uid": 1000, "gid": 7, "additionalGids": groups })
        );
        assert_eq!(web["env"], json!(["PATH=/bin", "A=1", "HOME=/home"]));
        let (all, none) = (json!(["CAP_KILL"]), json!([]));
        let sets = |process: &Value| {
            let sets = &process["capabilities"];
            ["bounding", "effective", "permitted"].map(|set| sets[set].clone())
        };
        assert_eq!(sets(&web), [all.clone(), none.clone(), none]);
        assert_eq!(sets(&as_user(0, &web)), [all.clone(), all.clone(), all]);
    }
}
