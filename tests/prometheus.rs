//! What other people's monitoring makes of the exporter: a real Prometheus scrapes it, and dashboard and alert rules ask it for what is there.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::command::{Outcome, Running, run, spawn};
use support::http::{Exporter, exchange};
use support::milter::Milter;
use support::mta::Message;
use support::ports::free_port;
use support::{SOON, wait_until};

/// The sender chooses the verdict.
const BY_SENDER: &str = include_str!("support/by_sender.lua");

const RULES: &str = "dist/prometheus/pmx-milter.rules.yml";
const RULES_TEST: &str = "tests/alerts/rules.test.yml";
const DASHBOARD: &str = "dist/grafana/pmx-milter.json";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// A session with a message of each of these senders.
fn mail(milter: &Milter, senders: &[&str]) {
    let mut session = milter.session();
    for sender in senders {
        session
            .message(&Message::from(&format!("{sender}@x.example")))
            .unwrap();
    }
    session.quit().unwrap();
}

/// Everything that the dashboard asks, each query once, with its variables filled in.
fn dashboard_queries() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut queries = BTreeSet::new();
    let mut ask = |query: &Value| {
        let query = query.as_str().unwrap();
        let filled = [
            ("$instance", ".*"),
            ("$milter", ".*"),
            ("$__rate_interval", "1m"),
        ]
        .iter()
        .fold(query.to_owned(), |query, (name, value)| {
            query.replace(name, value)
        });
        assert!(!filled.contains('$'), "{filled}");
        queries.insert(filled);
    };
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        targets.iter().for_each(|target| ask(&target["expr"]));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        ask(&annotation["expr"]);
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // label_values(METRIC, LABEL) is Grafana's.
        if let Some(query) = variable["definition"].as_str() {
            let metric = query.strip_prefix("label_values(").unwrap();
            let (metric, label) = metric.rsplit_once(", ").unwrap();
            assert!(["instance)", "milter)"].contains(&label), "{query}");
            ask(&Value::from(metric));
        }
    }
    assert!(panels.len() >= 10 && queries.len() >= panels.len());
    queries
}

/// Names of our metrics in a text; a name before `=` is a label.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("pmx_") {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let end = text[at..]
            .find(|c| !is_name(c))
            .map_or(text.len(), |end| at + end);
        if !text[end..].starts_with('=') && !text[..at].ends_with("$labels.") {
            names.insert(text[at..end].to_owned());
        }
    }
    names
}

#[test]
fn every_metric_of_dashboard_and_alerts_is_one_that_the_program_serves() {
    let milter = Milter::started(BY_SENDER, "");
    mail(&milter, &["accept"]);
    let exporter = Exporter::of(&milter, &[]);
    let page = exporter.get("/metrics").expect(200).body;
    let served: BTreeSet<String> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line[..line.find(['{', ' '])?].to_owned()))
        .collect();
    let queries: Vec<String> = dashboard_queries().into_iter().collect();
    for text in [queries.join("\n"), read(RULES), read(RULES_TEST)] {
        let used = metrics(&text);
        assert!(used.len() >= 8, "{used:?}");
        let missing: Vec<&String> = used.difference(&served).collect();
        assert!(missing.is_empty(), "{missing:?} in\n{text}");
    }
}

mod needs_promtool {
    use super::*;

    fn promtool(arguments: &[&str]) -> Outcome {
        let mut command = Command::new("promtool");
        command
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        run(command, SOON)
    }

    #[test]
    fn the_alert_rules_are_sound_and_each_fires_when_it_should() {
        promtool(&["check", "rules", RULES]).expect(0);
        promtool(&["test", "rules", RULES_TEST]).expect(0);
        let tests = read(RULES_TEST);
        let rules = read(RULES);
        let alerts: Vec<&str> = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
            .collect();
        assert!(alerts.len() >= 10, "{alerts:?}");
        for alert in alerts {
            let blocks: Vec<&str> = tests
                .split("- alertname: ")
                .filter(|block| block.lines().next() == Some(alert))
                .collect();
            let fires = |block: &&str| block.contains("exp_alerts:\n");
            assert!(blocks.iter().any(fires), "{alert} is never seen to fire");
            assert!(
                !blocks.iter().all(fires),
                "{alert} is never seen to be quiet"
            );
        }
    }

    #[test]
    fn an_alert_with_another_threshold_fails_its_test() {
        let dir = tempfile::tempdir().unwrap();
        let changed = read(RULES).replace("> 0.5\n", "> 0.9\n");
        assert_ne!(changed, read(RULES));
        fs::write(dir.path().join("rules.yml"), changed).unwrap();
        let tests =
            read(RULES_TEST).replace("../../dist/prometheus/pmx-milter.rules.yml", "rules.yml");
        fs::write(dir.path().join("test.yml"), tests).unwrap();
        let test = dir.path().join("test.yml");
        let outcome = promtool(&["test", "rules", test.to_str().unwrap()]).expect(1);
        assert!((outcome.out + &outcome.err).contains("PmxMilterFull"));
    }
}

mod needs_prometheus {
    use super::*;

    /// A Prometheus that scrapes one exporter every second.
    struct Prometheus {
        running: Running,
        address: SocketAddr,
        _dir: tempfile::TempDir,
    }

    impl Prometheus {
        fn scraping(target: SocketAddr) -> Prometheus {
            let dir = tempfile::tempdir().unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let config = format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [\"{}\"]\n\
                 scrape_configs:\n  - job_name: pmx-milter\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
                file(RULES).display()
            );
            let path = |name: &str| dir.path().join(name).display().to_string();
            fs::write(path("prometheus.yml"), config).unwrap();
            let mut command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", path("prometheus.yml")))
                .arg(format!("--storage.tsdb.path={}", path("data")))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=warn");
            let mut prometheus = Prometheus {
                running: spawn(command),
                address,
                _dir: dir,
            };
            wait_until(SOON, "Prometheus is ready", || {
                assert!(
                    !prometheus.running.has_ended(),
                    "{}",
                    prometheus.running.said()
                );
                let ready = exchange(address, b"GET /-/ready HTTP/1.0\r\n\r\n").ok()?;
                (ready.status == 200).then_some(())
            });
            prometheus
        }

        /// An answer of its API.
        fn api(&self, path: &str) -> Value {
            // Of HTTP/1.0, so that it is not in chunks.
            let request = format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n");
            let reply = exchange(self.address, request.as_bytes()).unwrap();
            let mut answer: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(answer["status"], "success", "{path}: {answer}");
            answer["data"].take()
        }

        /// Values of a query's result now.
        fn query(&self, query: &str) -> Vec<f64> {
            let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let data = self.api(&format!("query?query={escaped}"));
            let results = data["result"].as_array().unwrap();
            let value = |it: &Value| it["value"][1].as_str().unwrap().parse().unwrap();
            results.iter().map(value).collect()
        }

        /// Waits for one value.
        #[track_caller]
        fn wait_for(&self, query: &str, expected: f64) {
            let mut last = Vec::new();
            let end = std::time::Instant::now() + SOON;
            while std::time::Instant::now() < end {
                last = self.query(query);
                if last == [expected] {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            panic!("{query} is never {expected}, but {last:?}");
        }
    }

    #[test]
    fn a_real_prometheus_has_the_right_counts() {
        let milter = Milter::started(BY_SENDER, "");
        mail(
            &milter,
            &["accept", "accept", "accept", "reject", "reject", "tempfail"],
        );
        let exporter = Exporter::of(&milter, &[]);
        let prometheus = Prometheus::scraping(exporter.address);
        prometheus.wait_for("up{job=\"pmx-milter\"}", 1.0);
        prometheus.wait_for("sum(pmx_messages_total{milter=\"policy\"})", 6.0);
        prometheus.wait_for("pmx_messages_total{verdict=\"reject\"}", 2.0);
        prometheus.wait_for("pmx_message_duration_seconds_count", 6.0);
        // It asked for OpenMetrics and got it.
        prometheus.wait_for("pmx_state{pmx_state=\"running\"}", 1.0);
        // Goes on from there, through a restart too.
        mail(&milter, &["accept", "discard"]);
        milter.pmx(&["restart"]).expect(0);
        mail(&milter, &["accept"]);
        prometheus.wait_for("sum(pmx_messages_total)", 9.0);
        prometheus.wait_for("sum(pmx_messages_total{verdict=\"discard\"})", 1.0);
        prometheus.wait_for("max(pmx_generation)", 2.0);
        assert_eq!(
            prometheus.query("sum(resets(pmx_messages_total[5m]))"),
            [0.0]
        );
        milter.stop();
        prometheus.wait_for("pmx_up", 0.0);
    }

    #[test]
    fn dashboard_and_alerts_ask_a_real_prometheus_for_what_it_has() {
        let milter = Milter::started(BY_SENDER, "");
        mail(&milter, &["accept", "fault"]);
        let exporter = Exporter::of(&milter, &[]);
        let prometheus = Prometheus::scraping(exporter.address);
        // Rates need two samples.
        prometheus.wait_for("max(count_over_time(pmx_up[5m])) >= bool 3", 1.0);
        for query in dashboard_queries() {
            let result = prometheus.query(&query.replace("> 0", ">= 0"));
            assert!(!result.is_empty(), "{query} finds nothing");
        }
        let rules = wait_until(SOON, "every rule was evaluated", || {
            let rules = prometheus.api("rules")["groups"][0]["rules"].take();
            let all = rules.as_array().unwrap();
            all.iter()
                .all(|rule| rule["health"] != "unknown")
                .then(|| all.clone())
        });
        assert!(rules.len() >= 10);
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            // What it looks at is there, whatever it is compared with.
            let query = rule["query"].as_str().unwrap();
            let selectors = metrics(query);
            for name in selectors {
                assert!(!prometheus.query(&name).is_empty(), "{query}: no {name}");
            }
        }
    }
}
