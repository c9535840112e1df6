//! What an OCI runtime is told of limits. It says it to the kernel in the words of cgroups of either version.

use serde_json::{Value, json};

use crate::container::Limits;

/// Length of the kernel's accounting period for processor time, microseconds.
const CPU_PERIOD_US: u64 = 100_000;
const CPU_PERCENT_US: f64 = 1000.0;

/// `linux.resources`.
pub(crate) fn resources(limits: &Limits) -> Value {
    // The runtime adds the devices that every container has (null, zero, tty, ...).
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({ "limit": bytes });
    }
    let mut cpu = json!({});
    if let Some(percent) = limits.cpu_percent {
        cpu["period"] = json!(CPU_PERIOD_US);
        cpu["quota"] = json!((percent * CPU_PERCENT_US).round() as u64);
    }
    if let Some(shares) = limits.cpu_shares {
        cpu["shares"] = json!(shares);
    }
    if let Some(cpuset) = &limits.cpuset {
        cpu["cpus"] = json!(cpuset);
    }
    resources["cpu"] = cpu;
    if let Some(pids) = limits.pids_max {
        resources["pids"] = json!({ "limit": pids });
    }
    resources
}

/// `process.rlimits`.
pub(crate) fn rlimits(limits: &Limits) -> Vec<Value> {
    let ulimits = limits.ulimits.iter().map(|ulimit| {
        let kind = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        json!({ "type": kind, "soft": ulimit.soft, "hard": ulimit.hard })
    });
    ulimits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_resources() {
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            cpu_percent: Some(12.55),
            cpu_shares: Some(512),
            cpuset: Some("0".into()),
            pids_max: Some(7),
            ulimits: vec!["nofile=64:128".parse().unwrap()],
        };
        let resources = resources(&limits);
        assert_eq!(resources["memory"]["limit"], 1 << 20);
        assert_eq!(resources["pids"]["limit"], 7);
        assert_eq!(
            resources["cpu"],
            json!({ "period": 100_000, "quota": 12_550, "shares": 512, "cpus": "0" })
        );
        assert_eq!(
            Value::from(rlimits(&limits)),
            json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }])
        );
    }
}
