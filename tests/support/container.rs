//! What a Pod's one container is: its arguments, environment and volumes as the chart gives them, and the process that it
//! is while it runs. [`super::pod`] is what tests hold of it, [`super::kubelet`] what looks after it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, HTTPGetAction, Pod as PodObject, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::access::{Access, Credential};
use super::process::{Process, Program};
use super::volumes::{Mount, Volumes};

/// Where a Pod finds the token of its ServiceAccount.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where all Pods are, but those that are given an address of their own.
const LOOPBACK: &str = "127.0.0.1";
const LISTEN: [&str; 2] = ["--listen=127.0.0.1:", "--metrics-listen=127.0.0.1:"];

/// How it is reached and reaches others, from its next start.
#[derive(Clone, Debug)]
pub struct Address {
    pub api_server: Option<String>,
    pub host: String,
}

/// An end of the container that nobody asked for.
#[derive(Clone, Debug)]
pub struct Exit {
    /// As a kubelet gives it: 128 and the number of the signal, where it was one.
    pub code: i32,
    pub said: String,
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// What becomes of it.
#[derive(Default)]
pub struct State {
    pub process: Option<Arc<Process>>,
    /// When its first process was started.
    pub first_started: Option<Timestamp>,
    /// When the last one was.
    pub started: Option<(Instant, Timestamp)>,
    /// Whether the end of that process is known.
    pub ended: bool,
    /// Whether it is to run. One that was stopped, or whose node died, isn't started again.
    pub wanted: bool,
    /// How often a test started it: what is still under way from before doesn't count any more.
    pub generation: u64,
    pub restarts: i32,
    /// How it ended where nobody had it end.
    pub exits: Vec<Exit>,
    /// Whether its exits are what a test is about; otherwise one fails the test.
    pub may_exit: bool,
    /// Whether its end is what a test is about: it is no exit, and nobody starts it again.
    pub stays_dead: bool,
}

pub struct PodContainer {
    pub access: Access,
    pub object: PodObject,
    pub spec: Container,
    pub binary: Mutex<PathBuf>,
    pub folder: PathBuf,
    pub volumes: Volumes,
    pub address: Mutex<Address>,
    state: Mutex<State>,
}

impl PodContainer {
    pub fn new(access: Access, object: PodObject, spec: Container, binary: PathBuf, folder: PathBuf) -> Self {
        let volumes =
            Volumes::new(access.clone(), &field(&object, "metadata.namespace"), folder.join("volumes"));
        let address = Mutex::new(Address { api_server: None, host: LOOPBACK.to_owned() });
        Self {
            access,
            object,
            spec,
            binary: Mutex::new(binary),
            folder,
            volumes,
            address,
            state: Mutex::default(),
        }
    }

    /// Namespace and name of its Pod.
    pub fn name(&self) -> String {
        format!("{}/{}", field(&self.object, "metadata.namespace"), field(&self.object, "metadata.name"))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked has said so; the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to run, and was started last in this generation.
    pub fn is_of(&self, generation: u64) -> bool {
        let state = self.state();
        state.wanted && state.generation == generation
    }

    pub fn address(&self) -> Address {
        self.address.lock().expect("no panic while an address was changed").clone()
    }

    /// Where the container sees its volumes.
    pub fn mounts(&self) -> Vec<Mount> {
        self.volumes.mounts(&self.object, &self.spec)
    }

    /// The program with all that the chart gives it.
    ///
    /// # Errors
    /// When something that it needs isn't there yet.
    pub async fn prepare(&self) -> Result<Program, String> {
        self.volumes.fill(&self.object).await?;
        let mounts = self.mounts();
        let env = self.environment().await?;
        let Address { api_server, host } = self.address();

        let mut command = self.spec.command.clone().unwrap_or_default().into_iter();
        if let Some(first) = command.next() {
            assert!(first.ends_with("applink"), "the container starts {first}, which isn't ours");
        }
        let args = command.chain(self.spec.args.iter().flatten().cloned());
        let args = args.map(|arg| rewrite(&expand(&arg, &env), &mounts));
        let here = |arg: String| match LISTEN.iter().any(|at| arg.starts_with(at)) {
            true => arg.replacen("127.0.0.1", &host, 1),
            false => arg,
        };
        let args = args.map(here);
        let empty = self.access.folder().join("empty");
        std::fs::create_dir_all(&empty).map_err(|error| error.to_string())?;
        let binary = self.binary.lock().expect("no panic").clone();
        let mut program = Program::new(&binary, self.folder.join("log"))
            .args(args.collect::<Vec<_>>())
            .folder(empty)
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
                let url = api_server.as_deref().unwrap_or(self.access.url());
                let credential = Credential::TokenFile(&token);
                self.access.write_kubeconfig_at(&kubeconfig, url, &namespace, &credential);
                program = program.env("KUBECONFIG", kubeconfig);
            }
        }
        // Where coverage is measured.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            program = program.env("LLVM_PROFILE_FILE", profile);
        }
        Ok(program)
    }

    /// Begins a generation in which it is to run, and gives back its number.
    pub fn begin(&self) -> u64 {
        let mut state = self.state();
        state.wanted = true;
        state.stays_dead = false;
        state.generation += 1;
        state.generation
    }

    /// Starts the program, if it is to run in this generation; says whether it is.
    pub fn run(&self, program: &Program, generation: u64, again: bool) -> bool {
        let mut state = self.state();
        let is = state.wanted && state.generation == generation;
        if is {
            state.process = Some(Arc::new(program.start()));
            state.ended = false;
            let now = Timestamp::now();
            state.first_started.get_or_insert(now);
            state.started = Some((Instant::now(), now));
            state.restarts += i32::from(again);
        }
        is
    }

    /// Takes note of an exit that nobody asked for; how long it had run. Of each exit there is one note.
    pub fn take_exit(&self, generation: u64) -> Option<(Exit, Duration)> {
        let mut state = self.state();
        if state.generation == generation { note_exit(&mut state) } else { None }
    }

    /// From now on nobody starts it again. Gives back what runs, or ran last. An exit until now counts.
    pub fn give_up(&self) -> Option<Arc<Process>> {
        let mut state = self.state();
        note_exit(&mut state);
        state.wanted = false;
        state.process.clone()
    }

    /// Asks a probe once; `Err` says what it answered.
    pub async fn probe(&self, probe: Option<&Probe>) -> Result<(), String> {
        let get =
            probe.and_then(|probe| probe.http_get.as_ref()).ok_or("the container has no such HTTP probe")?;
        let url = self.url_of(get);
        let seconds = probe.and_then(|probe| probe.timeout_seconds).unwrap_or(1);
        let patience = Duration::from_secs(seconds.try_into().unwrap_or(1));
        let client = reqwest::Client::builder().timeout(patience).build();
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
        format!("http://{}:{port}/{path}", self.address().host)
    }

    /// The number of a port that the container names.
    ///
    /// # Panics
    /// When it names no such port.
    pub fn port(&self, name: &str) -> u16 {
        let port = self.spec.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
        let port = port.unwrap_or_else(|| panic!("Pod {} names no port {name}", self.name()));
        u16::try_from(port.container_port).expect("a port")
    }

    /// Writes the status that a kubelet writes: what kubectl shows, and what rollouts and Deployments go by. `waiting` says
    /// why the container doesn't run.
    ///
    /// # Errors
    /// When the API server can't be asked or refuses it.
    pub async fn report(&self, ready: bool, waiting: Option<&str>) -> Result<(), kube::Error> {
        let status = if ready { "True" } else { "False" };
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(
            |kind| json!({"type": kind, "status": if kind.ends_with("eady") { status } else { "True" }}),
        );
        let (restarts, first, started, last_exit) = {
            let state = self.state();
            let started = state.started.map_or_else(Timestamp::now, |(_, at)| at);
            (state.restarts, state.first_started.unwrap_or(started), started, state.exits.last().cloned())
        };
        let running = match waiting {
            None => json!({"running": {"startedAt": started.to_string()}}),
            Some(reason) => json!({"waiting": {"reason": reason}}),
        };
        let last = last_exit.map_or(json!({}), |exit| {
            let reason = if exit.code == 0 { "Completed" } else { "Error" };
            json!({"terminated": {
                "exitCode": exit.code, "reason": reason, "message": exit.said,
                "startedAt": exit.started.to_string(), "finishedAt": exit.finished.to_string(),
            }})
        });
        let patch = json!({"status": {
            "phase": "Running",
            "startTime": first.to_string(),
            "conditions": conditions,
            "containerStatuses": [{
                "name": self.spec.name,
                "image": self.spec.image,
                "imageID": "",
                "ready": ready,
                "started": waiting.is_none(),
                "restartCount": restarts,
                "state": running,
                "lastState": last,
            }],
        }});
        let pods: Api<PodObject> =
            Api::namespaced(self.access.client(), &field(&self.object, "metadata.namespace"));
        let name = field(&self.object, "metadata.name");
        pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ())
    }

    /// The container's environment as the chart gives it.
    async fn environment(&self) -> Result<Vec<(String, String)>, String> {
        let mut env = Vec::new();
        for source in self.spec.env_from.iter().flatten() {
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
        for variable in self.spec.env.iter().flatten() {
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

/// Notes that the process that is to run has ended, once.
fn note_exit(state: &mut State) -> Option<(Exit, Duration)> {
    let status = state.process.as_ref().filter(|_| state.wanted && !state.ended)?.exit()?;
    state.ended = true;
    let finished = Timestamp::now();
    let (ran, started) =
        state.started.map_or((Duration::ZERO, finished), |(at, started)| (at.elapsed(), started));
    let exit = Exit { code: code(status), said: status.to_string(), started, finished };
    if !state.stays_dead {
        state.exits.push(exit.clone());
    }
    Some((exit, ran))
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
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
pub(super) fn rewrite(text: &str, mounts: &[Mount]) -> String {
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
