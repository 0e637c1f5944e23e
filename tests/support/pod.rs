//! One Pod, run as a kubelet would run it: its container's own arguments, environment, volumes and probes, with the
//! binary in place of the image. There is no container around it, so a path of a mount is the path of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, HTTPGetAction, Pod as PodObject, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::plane::{ControlPlane, Credential};
use super::process::{Process, Program, read_log};
use super::volumes::{Mount, Volumes};
use super::wait::eventually;

/// Where a Pod finds the token of its ServiceAccount.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where all Pods are, but those that are given an address of their own.
const LOOPBACK: &str = "127.0.0.1";
const LISTEN: &str = "--listen=127.0.0.1:";

/// How long a container may wait for a Secret that its Pod needs.
const SECRETS: Duration = Duration::from_secs(60);

pub struct Pod<'p> {
    // First, so that it ends before its folders do.
    process: Option<Process>,
    plane: &'p ControlPlane,
    object: PodObject,
    container: Container,
    binary: PathBuf,
    folder: PathBuf,
    volumes: Volumes<'p>,
    api_server: Option<String>,
    host: String,
}

impl<'p> Pod<'p> {
    /// A Pod that isn't started yet.
    ///
    /// # Panics
    /// When it has what can't be run here: several containers, or one that does not start the binary.
    pub fn new(plane: &'p ControlPlane, object: PodObject, binary: &Path) -> Self {
        let (namespace, name) = (field(&object, "metadata.namespace"), field(&object, "metadata.name"));
        let spec = object.spec.as_ref().expect("a Pod's spec");
        assert!(
            spec.init_containers.iter().flatten().next().is_none(),
            "the rig runs no init containers: {name}"
        );
        let [container] = spec.containers.as_slice() else {
            panic!("the rig runs Pods of one container: {name}");
        };
        let container = container.clone();
        let folder = plane.run_dir().folder(format!("pods/{namespace}/{name}"));
        let volumes = Volumes::new(plane, &namespace, folder.join("volumes"));
        Self {
            process: None,
            plane,
            object,
            container,
            binary: binary.to_owned(),
            folder,
            volumes,
            api_server: None,
            host: LOOPBACK.to_owned(),
        }
    }

    /// Has the Pod reach the API server through somebody at this address, from its next start.
    pub fn reach_api_server_by(&mut self, url: &str) {
        self.api_server = Some(url.to_owned());
    }

    /// Gives the Pod an address of its own, from its next start: two Pods of one Deployment listen on one port. It is
    /// another one of the loopback network, in place of 127.0.0.1 in `--listen` and in the probes.
    pub fn listen_on(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Starts the container, once all that it needs is there.
    ///
    /// # Panics
    /// When something isn't there in time.
    pub async fn start(&mut self) {
        self.volumes.fill(&self.object, SECRETS).await;
        let mounts = self.volumes.mounts(&self.object, &self.container);
        let what = format!("the environment of Pod {}", self.name());
        let env = eventually(SECRETS, what, async || self.environment().await).await;

        let mut command = self.container.command.clone().unwrap_or_default().into_iter();
        if let Some(first) = command.next() {
            assert!(first.ends_with("applink"), "the container starts {first}, which isn't ours");
        }
        let args = command.chain(self.container.args.iter().flatten().cloned());
        let args = args.map(|arg| rewrite(&expand(&arg, &env), &mounts));
        let here = |port: &str| format!("--listen={}:{port}", self.host);
        let args = args.map(|arg| arg.strip_prefix(LISTEN).map(here).unwrap_or(arg));
        let mut program = Program::new(&self.binary, self.folder.join("log"))
            .args(args.collect::<Vec<_>>())
            .folder(self.plane.run_dir().folder("empty"))
            .env("RUST_BACKTRACE", "1");
        for (name, value) in &env {
            program = program.env(name, rewrite(value, &mounts));
        }
        for mount in &mounts {
            if mount.path == "/tmp" {
                program = program.env("TMPDIR", &mount.folder);
            }
            // Without a token there is no kubeconfig: what the chart forgets, the test must show.
            if mount.path == TOKEN_FOLDER {
                let kubeconfig = self.folder.join("kubeconfig");
                let token = mount.folder.join("token");
                let namespace = field(&self.object, "metadata.namespace");
                let url = self.api_server.as_deref().unwrap_or(self.plane.url());
                self.plane.write_kubeconfig_at(&kubeconfig, url, &namespace, &Credential::TokenFile(&token));
                program = program.env("KUBECONFIG", kubeconfig);
            }
        }
        // Where coverage is measured.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            program = program.env("LLVM_PROFILE_FILE", profile);
        }
        self.process = Some(program.start());
    }

    /// Ends the container as a rollout does, and starts it again in the same Pod.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// SIGTERM, and SIGKILL when the grace period is over. Says how it ended.
    ///
    /// # Panics
    /// When it isn't started.
    pub async fn stop(&mut self) -> ExitStatus {
        let seconds =
            self.object.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let process = self.process.take().expect("the Pod is started");
        process.terminate();
        let started = std::time::Instant::now();
        while process.is_running() {
            if started.elapsed() > grace {
                process.kill();
                return process.wait(Duration::from_secs(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process.wait(Duration::ZERO).await
    }

    /// SIGKILL: as when the node dies. The Pod can be started again.
    pub fn kill(&self) {
        self.process().kill();
    }

    pub fn terminate(&self) {
        self.process().terminate();
    }

    /// # Panics
    /// When it isn't started.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the Pod is started")
    }

    pub fn name(&self) -> String {
        field(&self.object, "metadata.name")
    }

    /// The Pod as the API server gave it.
    pub fn object(&self) -> &PodObject {
        &self.object
    }

    /// All that its container has written, over all its starts.
    pub fn logs(&self) -> String {
        read_log(&self.folder.join("log"))
    }

    /// Brings Secrets, ConfigMaps and tokens that have changed into the volumes, as the kubelet does within a minute.
    pub async fn sync_volumes(&self) {
        self.volumes.refill(&self.object).await;
    }

    /// The folder that stands for a path of the container, for a look at what is in a volume.
    pub fn host_path(&self, path: &str) -> PathBuf {
        rewrite(path, &self.volumes.mounts(&self.object, &self.container)).into()
    }

    /// The number of a port that the container names.
    ///
    /// # Panics
    /// When it names no such port.
    pub fn port(&self, name: &str) -> u16 {
        let port = self.container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
        let port = port.unwrap_or_else(|| panic!("Pod {} names no port {name}", self.name()));
        u16::try_from(port.container_port).expect("a port")
    }

    /// Waits until the readiness probe succeeds, and tells the API server so, as the kubelet would.
    ///
    /// # Panics
    /// When the container ends, or isn't ready in time.
    pub async fn until_ready(&self, deadline: Duration) {
        eventually(deadline, format!("Pod {} to be ready", self.name()), async || {
            self.process().must_run();
            self.probe(self.container.readiness_probe.as_ref()).await
        })
        .await;
        self.report_ready(true).await;
    }

    /// Asks the readiness probe once; `Err` says what it answered.
    pub async fn readiness(&self) -> Result<(), String> {
        self.probe(self.container.readiness_probe.as_ref()).await
    }

    /// Asks the liveness probe once; `Err` says what it answered.
    pub async fn liveness(&self) -> Result<(), String> {
        self.probe(self.container.liveness_probe.as_ref()).await
    }

    async fn probe(&self, probe: Option<&Probe>) -> Result<(), String> {
        let get =
            probe.and_then(|probe| probe.http_get.as_ref()).ok_or("the container has no such HTTP probe")?;
        let url = self.url_of(get);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build();
        let answer = client.map_err(|error| error.to_string())?.get(&url).send().await;
        let answer = answer.map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("{url}: {status}")) }
    }

    fn url_of(&self, get: &HTTPGetAction) -> String {
        let port = match &get.port {
            IntOrString::Int(port) => u16::try_from(*port).expect("a port"),
            IntOrString::String(name) => self.port(name),
        };
        let path = get.path.as_deref().unwrap_or_default().trim_start_matches('/');
        format!("http://{}:{port}/{path}", self.host)
    }

    /// Writes the status that a kubelet writes, so that rollouts go on and a Deployment becomes available.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub async fn report_ready(&self, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(
            |kind| json!({"type": kind, "status": if kind.ends_with("eady") { status } else { "True" }}),
        );
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"status": {
            "phase": "Running",
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [{
                "name": self.container.name,
                "image": self.container.image,
                "imageID": "",
                "ready": ready,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }],
        }});
        let pods: Api<PodObject> =
            Api::namespaced(self.plane.client(), &field(&self.object, "metadata.namespace"));
        pods.patch_status(&self.name(), &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .expect("its status");
    }

    /// The container's environment as the chart gives it.
    async fn environment(&self) -> Result<Vec<(String, String)>, String> {
        let mut env = Vec::new();
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (what, optional, data) = if let Some(map) = &source.config_map_ref {
                (&map.name, map.optional, self.volumes.config_map_data(&map.name).await?)
            } else if let Some(secret) = &source.secret_ref {
                (&secret.name, secret.optional, self.volumes.secret_data(&secret.name).await?)
            } else {
                continue;
            };
            if data.is_none() && !optional.unwrap_or_default() {
                return Err(format!("there is no {what}"));
            }
            for (key, value) in data.unwrap_or_default() {
                env.push((format!("{prefix}{key}"), text(value)?));
            }
        }
        for variable in self.container.env.iter().flatten() {
            let value = match &variable.value_from {
                None => Some(expand(variable.value.as_deref().unwrap_or_default(), &env)),
                Some(source) => self.value_from(source).await?,
            };
            if let Some(value) = value {
                env.retain(|(name, _)| *name != variable.name);
                env.push((variable.name.clone(), value));
            }
        }
        Ok(env)
    }

    /// `None` where the value is optional and not there.
    async fn value_from(&self, source: &EnvVarSource) -> Result<Option<String>, String> {
        if let Some(reference) = &source.field_ref {
            return Ok(Some(field(&self.object, &reference.field_path)));
        }
        let (what, key, optional, data) = if let Some(secret) = &source.secret_key_ref {
            (&secret.name, &secret.key, secret.optional, self.volumes.secret_data(&secret.name).await?)
        } else if let Some(map) = &source.config_map_key_ref {
            (&map.name, &map.key, map.optional, self.volumes.config_map_data(&map.name).await?)
        } else {
            panic!("the rig does not know this source of a variable: {source:?}");
        };
        match data.unwrap_or_default().remove(key) {
            Some(value) => text(value).map(Some),
            None if optional.unwrap_or_default() => Ok(None),
            None => Err(format!("{what} has no key {key}, or isn't there")),
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// What a `fieldRef` gives. A node and its address are made up.
///
/// # Panics
/// When the path isn't known here.
pub(super) fn field(pod: &PodObject, path: &str) -> String {
    let metadata = &pod.metadata;
    let of_map = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let key = path.split_once("['").and_then(|(_, rest)| rest.strip_suffix("']"));
    match (path, key) {
        ("metadata.name", _) => metadata.name.clone().unwrap_or_default(),
        ("metadata.namespace", _) => metadata.namespace.clone().unwrap_or_default(),
        ("metadata.uid", _) => metadata.uid.clone().unwrap_or_default(),
        ("spec.nodeName", _) => "node-1".to_owned(),
        ("spec.serviceAccountName", _) => {
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        ("status.podIP" | "status.podIPs" | "status.hostIP", _) => "127.0.0.1".to_owned(),
        (_, Some(key)) if path.starts_with("metadata.labels") => of_map(&metadata.labels, key),
        (_, Some(key)) if path.starts_with("metadata.annotations") => of_map(&metadata.annotations, key),
        _ => panic!("the rig does not know the field {path}"),
    }
}

/// `$(NAME)` becomes the variable's value, where there is such a variable; `$$` is one dollar sign.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            match env.iter().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

/// Puts the folders in the place of the paths that the container would see. `mounts`: the longest path first.
fn rewrite(text: &str, mounts: &[Mount]) -> String {
    let mut rewritten = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let begins = rewritten.is_empty()
            || rewritten.ends_with("://")
            || rewritten.ends_with(['=', ',', ':', ' ', '"']);
        let mount = mounts.iter().filter(|_| begins).find(|mount| {
            let after = rest.strip_prefix(mount.path.as_str());
            after.is_some_and(|after| after.is_empty() || after.starts_with(['/', ',', ':', ' ', '"', '?']))
        });
        match mount {
            Some(mount) => {
                rewritten.push_str(&mount.folder.to_string_lossy());
                rest = &rest[mount.path.len()..];
            }
            None => {
                rewritten.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_arguments_are_expanded_as_kubernetes_does() {
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        let cases = [
            ("--a=$(A)", "--a=1"),
            ("$(A)$(B)", "1$(A)"),
            ("$$(A)", "$(A)"),
            ("$(C) $ $(A", "$(C) $ $(A"),
            ("cost: $5$$", "cost: $5$"),
        ];
        for (given, expected) in cases {
            assert_eq!(expand(given, &env), expected, "{given}");
        }
    }

    #[test]
    fn paths_of_mounts_become_folders() {
        let mount = |path: &str, folder: &str| Mount { path: path.to_owned(), folder: folder.into() };
        let mounts =
            [mount("/data/keys", "/tmp/x/keys"), mount("/data", "/tmp/x/data"), mount("/tmp", "/tmp/x/tmp")];
        let cases = [
            ("--key=/data/keys/a", "--key=/tmp/x/keys/a"),
            ("sqlite:///data/db?mode=rwc", "sqlite:///tmp/x/data/db?mode=rwc"),
            ("/data", "/tmp/x/data"),
            ("/database", "/database"),
            ("https://example.com/data", "https://example.com/data"),
            ("/tmp,/data", "/tmp/x/tmp,/tmp/x/data"),
        ];
        for (given, expected) in cases {
            assert_eq!(rewrite(given, &mounts), expected, "{given}");
        }
    }
}
