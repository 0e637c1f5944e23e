//! The test rig itself: is the control plane real, are the programs the pinned ones, and does nothing survive?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as PodObject, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::chart::Release;
use crate::support::plane::{ControlPlane, Options};
use crate::support::process::{Program, RunDir};
use crate::support::stage::unique;
use crate::support::wait::{SOON, eventually};

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).join("exe").read_link().is_ok()
}

#[tokio::test]
async fn objects_can_be_made_read_changed_and_deleted() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("crud").await;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client(), &namespace);
    let mark = plane.audit_mark().await;

    maps.create(&PostParams::default(), &config_map("a", "1")).await.expect("create");
    let patch = json!({"data": {"key": "2"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patch");
    let read = maps.get("a").await.expect("get");
    assert_eq!(read.data, config_map("a", "2").data);
    maps.delete("a", &DeleteParams::default()).await.expect("delete");
    assert!(maps.get_opt("a").await.expect("get").is_none());

    let events =
        plane.audit_since(mark, |event| event.is_in(&namespace) && event.object_ref.name == "a").await;
    let said: Vec<_> =
        events.iter().map(|e| (e.verb.as_str(), e.response_status.code, e.is_write())).collect();
    let expected = [
        ("create", 201, true),
        ("patch", 200, true),
        ("get", 200, false),
        ("delete", 200, true),
        ("get", 404, false),
    ];
    assert_eq!(said, expected);
    assert!(events.iter().all(|event| event.user.username == "admin"), "{events:?}");
}

#[tokio::test]
async fn the_programs_are_the_pinned_ones() {
    let plane = ControlPlane::shared().await;
    let helm = plane.helm(&["version", "--template", "{{.Version}}"]).await.ok();
    // Those that are there already may be another patch release.
    assert!(helm.starts_with("v4.2."), "{helm}");
    let versions: Value =
        serde_json::from_str(&plane.kubectl(&["version", "--output=json"]).await.ok()).expect("JSON");
    for side in ["clientVersion", "serverVersion"] {
        let version = versions[side]["gitVersion"].as_str().expect("a version");
        assert!(version.starts_with("v1.36."), "{side}: {version}");
    }
}

#[tokio::test]
async fn a_private_control_plane_restarts_and_leaves_nothing() {
    let plane = ControlPlane::start(Options::default()).await;
    let namespace = plane.namespace("kept").await;

    plane.stop_apiserver();
    assert!(plane.client().apiserver_version().await.is_err(), "it is stopped");
    plane.restart_apiserver().await;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client(), &namespace);
    let root: ConfigMap =
        eventually(SOON, "the namespace's CA", async || maps.get("kube-root-ca.crt").await).await;
    assert!(root.data.is_some(), "{root:?}");

    let pids = plane.pids();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let folder = plane.run_dir().path().to_owned();
    drop(plane);
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 0);
    assert!(!folder.exists(), "{} is still there", folder.display());
}

/// Writes a script that can be run.
fn write_script(file: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, format!("#!/usr/bin/env bash\n{script}\n")).expect("a script");
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("it can be run");
}

/// Runs `tests/rig/build.sh` for a part with an empty cache and no programs but these and a shell's own.
fn build_with(run: &RunDir, part: &str, programs: &[(&str, &str)], env: &[(&str, &Path)]) -> Output {
    use std::os::unix::fs::symlink;
    let bin = run.folder(format!("bin-{}", unique()));
    let shell = "awk bash cat chmod cut dirname env flock ln mkdir mktemp mv rm sed sha256sum sort head tail tar uname";
    let path = std::env::var_os("PATH").expect("a PATH");
    for name in shell.split(' ') {
        let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
        symlink(found.unwrap_or_else(|| panic!("no {name} on the PATH")), bin.join(name)).expect("a link");
    }
    for (name, script) in programs {
        write_script(&bin.join(name), script);
    }
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/build.sh"))
        .args(["--print-bin", part])
        .env_clear()
        .env("PATH", &bin)
        .env("APPLINK_RIG_CACHE", run.folder(format!("cache-{part}-{}", programs.len())))
        .envs(env.iter().copied())
        .output()
        .expect("the script runs")
}

/// The same where it must fail; returns all that it says.
fn build_fails(run: &RunDir, part: &str, programs: &[(&str, &str)], env: &[(&str, &Path)]) -> String {
    let output = build_with(run, part, programs, env);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

#[test]
fn what_the_rig_needs_and_lacks_is_said() {
    let run = RunDir::new("applink-lacking-");
    let said = build_fails(&run, "nonesuch", &[], &[]);
    assert_eq!(said, "rig: there is no part called nonesuch; there are etcd kubernetes helm hydra keycloak.");
    let said = build_fails(&run, "hydra", &[], &[]);
    assert!(said.ends_with("built, and there is no go on the PATH."), "{said}");
    let said = build_fails(&run, "hydra", &[("go", "echo go1.99.0")], &[]);
    assert!(said.ends_with("needs a C compiler to be built, and there is no gcc on the PATH."), "{said}");
    let said = build_fails(&run, "keycloak", &[], &[]);
    assert!(said.ends_with("needs Java 17 or newer and Maven, and there is no java on the PATH."), "{said}");
    let java = ("java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2");
    let said = build_fails(&run, "keycloak", &[java, ("mvn", "")], &[]);
    assert!(said.ends_with("needs Java 17 or newer, and this is 11."), "{said}");
}

#[test]
fn a_keycloak_other_than_the_pinned_one_is_refused() {
    let run = RunDir::new("applink-other-");
    // In Maven's place: brings the file that is asked for, and it isn't Keycloak.
    let mvn = r#"for word; do
        case $word in -DoutputDirectory=*) folder=${word#*=} ;; -Dartifact=*) IFS=: read -r _ name version kind <<<"$word" ;; esac
    done
    echo other >"$folder/$name-$version.$kind""#;
    let java = ("java", "echo 'openjdk version \"21\"' >&2");
    let said = build_fails(&run, "keycloak", &[java, ("mvn", mvn), ("unused", "")], &[]);
    assert!(said.contains("could not be fetched; the whole output is in"), "{said}");
    let log = run.path().join("cache-keycloak-3/keycloak.log");
    let log = std::fs::read_to_string(log).expect("the log");
    assert!(log.contains("keycloak-quarkus-dist-26.4.5.tar.gz: FAILED"), "{log}");
}

#[test]
fn programs_that_are_there_are_used_where_they_are_of_the_pinned_version() {
    let run = RunDir::new("applink-there-");
    let assets = run.folder("assets");
    let there = [("KUBEBUILDER_ASSETS", assets.as_path())];
    let said = build_fails(&run, "etcd", &[], &[("KUBEBUILDER_ASSETS", Path::new("/nowhere"))]);
    assert_eq!(
        said,
        "rig: KUBEBUILDER_ASSETS is /nowhere, and there is no such folder. Name one that holds the programs, or unset it."
    );

    write_script(&assets.join("etcd"), "echo 'etcd Version: 3.4.9'");
    let said = build_fails(&run, "etcd", &[], &there);
    assert!(said.contains("KUBEBUILDER_ASSETS has etcd 3.4.9, and 3.6 is pinned: it isn't used"), "{said}");
    assert!(said.ends_with("built, and there is no go on the PATH."), "{said}");

    write_script(&assets.join("etcd"), "echo 'etcd Version: 3.6.2'");
    let output = build_with(&run, "etcd", &[], &there);
    assert!(output.status.success(), "{output:?}");
    let bin = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    assert_eq!(bin.join("etcd").read_link().expect("a link"), assets.join("etcd"));

    // envtest has no kube-controller-manager: it is built alone.
    write_script(&assets.join("kube-apiserver"), "echo Kubernetes v1.36.0");
    write_script(&assets.join("kubectl"), "echo Client Version: v1.36.0");
    let go = r#"case $1 in env) echo go1.99.0 ;; *)
        while [[ $1 != -o ]]; do shift; done
        echo "$@" >"$2/kube-controller-manager" && chmod +x "$2/kube-controller-manager" ;; esac"#;
    let output = build_with(&run, "kubernetes", &[("go", go)], &there);
    assert!(output.status.success(), "{output:?}");
    let bin = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    assert_eq!(bin.join("kubectl").read_link().expect("a link"), assets.join("kubectl"));
    let built = std::fs::read_to_string(bin.join("kube-controller-manager")).expect("what was built");
    assert!(built.trim_end().ends_with("/./ k8s.io/kubernetes/cmd/kube-controller-manager"), "{built}");
}

/// Not a test: what the next one runs, and kills.
#[test]
#[ignore = "runs for ever; another test starts it"]
fn never_ends() {
    let run = RunDir::new("applink-never-ends-");
    let child = Program::new("/bin/sleep", run.path().join("log")).args(["1000"]).start();
    let file = std::env::var_os("APPLINK_TEST_PIDS").expect("a file to write to");
    let line = format!("{} {}\n", child.pid(), run.path().display());
    std::fs::write(file, line).expect("the file can be written");
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn children_and_folders_do_not_outlive_a_process_that_is_killed() {
    let run = RunDir::new("applink-killed-");
    let file = run.path().join("pids");
    let this = std::env::current_exe().expect("this program");
    let mut victim = Command::new(this)
        .args(["--exact", "rig::never_ends", "--ignored"])
        .env("APPLINK_TEST_PIDS", &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("this program starts");
    let line = eventually(SOON, "the child to start", async || {
        std::fs::read_to_string(&file).ok().filter(|line| line.ends_with('\n'))
    })
    .await;
    let (pid, folder) = line.trim().split_once(' ').expect("two words");
    let pid = pid.parse().expect("a PID");
    assert!(is_alive(pid) && Path::new(folder).exists());

    victim.kill().expect("it runs");
    victim.wait().expect("it ran");
    eventually(SOON, "the child's end", async || !is_alive(pid)).await;
    eventually(SOON, "the folder's end", async || !Path::new(folder).exists()).await;
}

/// A chart with all that a container can be given; its program is a shell.
fn write_chart(folder: &Path) {
    let secret = json!({"secretName": "late"});
    let env = json!([
        {"name": "PLAIN", "value": "{{ .Values.plain }}"},
        {"name": "COMPOSED", "value": "$(PLAIN)-$(NOT_THERE)"},
        {"name": "SPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "never", "key": "x", "optional": true}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "late", "key": "password"}}},
    ]);
    let script = "echo \"$PLAIN $COMPOSED $SPACE $POD ${OPTIONAL-none} $SECRET $(cat \"$1\")\"; echo \"$2\"; exec sleep 1000";
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "{{ .Release.Name }}"},
        "spec": {
            "selector": {"matchLabels": {"app": "shell"}},
            "template": {
                "metadata": {"labels": {"app": "shell"}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": "shell",
                        "image": "shell",
                        "args": ["-c", script, "sh", "/etc/late/password", "--plain=$(PLAIN)"],
                        "env": env,
                        "volumeMounts": [{"name": "late", "mountPath": "/etc/late"}],
                    }],
                    "volumes": [{"name": "late", "secret": secret}],
                },
            },
        },
    });
    std::fs::create_dir_all(folder.join("templates")).expect("a folder");
    std::fs::write(folder.join("templates/deployment.yaml"), deployment.to_string()).expect("a template");
    let chart = json!({"apiVersion": "v2", "name": "shell", "version": "0.1.0"});
    std::fs::write(folder.join("Chart.yaml"), chart.to_string()).expect("a chart");
}

#[tokio::test]
async fn a_pod_is_run_as_the_chart_says() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("chart").await;
    let chart = plane.run_dir().folder("shell-chart");
    write_chart(&chart);
    let release = Release::of(plane, &chart, "shell", &namespace);
    release.try_install(&json!({"plain": "first"})).await.ok();
    let mut pod = release.deployment_pod("shell", Path::new("/bin/sh")).await;

    // Tokens are renewed long before they end.
    pod.sync_every(Duration::from_millis(200), 0);
    let secrets: Api<Secret> = Api::namespaced(plane.client(), &namespace);
    let late = Secret {
        metadata: ObjectMeta { name: Some("late".to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("password".to_owned(), ByteString(b"hunter2".to_vec()))])),
        ..Secret::default()
    };
    let make_secret = async {
        secrets.create(&PostParams::default(), &late).await.expect("a Secret");
    };
    tokio::join!(pod.start(), make_secret);
    let expected =
        format!("first first-$(NOT_THERE) {namespace} {} none hunter2 hunter2\n--plain=first\n", pod.name());
    eventually(SOON, "the first output", async || {
        let logs = pod.logs();
        if logs == expected { Ok(()) } else { Err(logs) }
    })
    .await;

    let token = pod.host_path("/var/run/secrets/kubernetes.io/serviceaccount/token");
    let before = std::fs::read_to_string(&token).expect("a token");
    eventually(SOON, "another token", async || {
        std::fs::read_to_string(&token).is_ok_and(|now| now != before)
    })
    .await;

    // Its kubeconfig is its ServiceAccount's, which may do nothing.
    let kubeconfig = plane.run_dir().path().join("pods").join(&namespace).join(pod.name()).join("kubeconfig");
    let own: Api<PodObject> = Api::default_namespaced(plane.client_of(&kubeconfig).await);
    let refused = own.list(&ListParams::default()).await.expect_err("no rights").to_string();
    assert!(refused.contains(&format!("system:serviceaccount:{namespace}:default")), "{refused}");

    let patch = json!({"stringData": {"password": "changed"}});
    secrets.patch("late", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    pod.sync_volumes().await;
    let file = pod.host_path("/etc/late/password");
    assert_eq!(std::fs::read_to_string(file).expect("the volume's file"), "changed");

    // Ended as a rollout does it, and started again in the same Pod.
    let before = pod.process().pid();
    pod.restart().await;
    assert_ne!(pod.process().pid(), before);
    eventually(SOON, "the second output", async || pod.logs().contains("changed changed\n")).await;

    // One that exits is started again, and kubectl shows it.
    pod.may_exit();
    let first = pod.process();
    first.kill();
    eventually(SOON, "the third output", async || pod.logs().matches("changed changed\n").count() == 2).await;
    assert_ne!(pod.process().pid(), first.pid());
    eventually(SOON, "a RESTARTS of 1", async || {
        let shown = plane.kubectl(&["get", "pod", &pod.name(), "-n", &namespace, "--no-headers"]).await.ok();
        let columns: Vec<_> = shown.split_whitespace().collect();
        if columns[1..4] == ["1/1", "Running", "1"] { Ok(()) } else { Err(shown) }
    })
    .await;
    // The second time there is a pause, and it is said why.
    pod.process().kill();
    let pods: Api<PodObject> = Api::namespaced(plane.client(), &namespace);
    eventually(SOON, "a pause", async || {
        let status = pods.get(&pod.name()).await.expect("the Pod").status.expect("its status");
        let container = status.container_statuses.expect("its container").remove(0);
        let waiting = container.state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason);
        (waiting.as_deref() == Some("CrashLoopBackOff") && !container.ready).then_some(())
    })
    .await;
    pod.restart().await;

    // The status that a kubelet would write makes the Deployment available.
    pod.report_ready(true).await;
    let deployments: Api<Deployment> = Api::namespaced(plane.client(), &namespace);
    eventually(SOON, "an available replica", async || {
        let status = deployments.get("shell").await.ok()?.status?;
        status.available_replicas.filter(|count| *count == 1)
    })
    .await;

    release.upgrade(&json!({"plain": "second"})).await.ok();
    let newer = release.deployment_pod("shell", Path::new("/bin/sh")).await;
    assert_ne!(newer.name(), pod.name());
    release.uninstall().await.ok();
    eventually(SOON, "the Deployment's end", async || {
        deployments.get_opt("shell").await.is_ok_and(|deployment| deployment.is_none())
    })
    .await;
}
