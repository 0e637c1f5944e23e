//! One Pod, run as a kubelet would run it: its container's own arguments, environment, volumes and probes, with the
//! binary in place of the image. There is no container around it, so a path of a mount is the path of a folder.
//!
//! A container that exits is started again ([`super::kubelet`]), and the exit fails the test, unless the test says
//! [`Pod::may_exit`] or [`Pod::stays_dead`]. One that a test ends itself stays dead.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as PodObject;
use tokio::task::JoinHandle;

use super::container::{PodContainer, field, rewrite};
use super::kubelet;
use super::plane::ControlPlane;
use super::process::{Process, read_log};
use super::wait::{SOON, eventually};

pub struct Pod<'p> {
    container: Arc<PodContainer>,
    kubelet: Option<JoinHandle<()>>,
    sync: Duration,
    /// Its processes don't outlive the control plane.
    plane: PhantomData<&'p ControlPlane>,
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
        let access = plane.access().clone();
        let container = PodContainer::new(access, object, container, binary.to_owned(), folder);
        Self { container: Arc::new(container), kubelet: None, sync: kubelet::SYNC, plane: PhantomData }
    }

    /// Has the Pod run another program, from its next start: as an upgrade brings another image.
    pub fn run_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.container.binary.lock().expect("no panic"));
    }

    /// Has the Pod reach the API server through somebody at this address, from its next start.
    pub fn reach_api_server_by(&mut self, url: &str) {
        self.container.address.lock().expect("no panic").api_server = Some(url.to_owned());
    }

    /// Gives the Pod an address of its own, from its next start: two Pods of one Deployment listen on one port. It is
    /// another one of the loopback network, in place of 127.0.0.1 in `--listen` and in the probes.
    pub fn listen_on(&mut self, host: &str) {
        host.clone_into(&mut self.container.address.lock().expect("no panic").host);
    }

    /// The container may exit by itself: it is started again, and that doesn't fail the test.
    pub fn may_exit(&self) {
        self.container.state().may_exit = true;
    }

    /// How often it was started again after an exit.
    pub fn restarts(&self) -> i32 {
        self.container.state().restarts
    }

    /// Its end is what the test is about: until it is started again, an exit doesn't fail the test, and nobody starts it.
    pub fn stays_dead(&self) {
        self.container.state().stays_dead = true;
    }

    /// Has its volumes filled so often, and tokens renewed after so many hundredths of their life, from its next start.
    pub fn sync_every(&mut self, sync: Duration, hundredths: i64) {
        self.sync = sync;
        self.container.volumes.renew_tokens_at(hundredths);
    }

    /// Starts the container, once all that it needs is there.
    ///
    /// # Panics
    /// When something isn't there in time.
    pub async fn start(&mut self) {
        self.stop_looking();
        let what = format!("what Pod {} needs", self.name());
        let program = eventually(SOON, what, async || self.container.prepare().await).await;
        let generation = self.container.begin();
        self.container.run(&program, generation, false);
        self.kubelet = Some(kubelet::keep(Arc::clone(&self.container), generation, self.sync));
    }

    /// # Panics
    /// When what looked after the container has panicked: then nobody saw what became of it.
    fn stop_looking(&mut self) {
        let Some(kubelet) = self.kubelet.take() else { return };
        let ended = kubelet.is_finished() && self.container.state().wanted;
        kubelet.abort();
        assert!(!ended || std::thread::panicking(), "the kubelet of Pod {} panicked", self.name());
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
        let spec = self.container.object.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let process = self.container.give_up().expect("the Pod is started");
        self.stop_looking();
        process.terminate();
        let started = std::time::Instant::now();
        while process.is_running() {
            if started.elapsed() > grace {
                process.kill();
                return process.wait(SOON).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process.wait(Duration::ZERO).await
    }

    /// SIGKILL, as when the node dies: nobody starts it again but the test.
    pub fn kill(&self) {
        self.container.give_up().expect("the Pod is started").kill();
    }

    /// SIGTERM, as when the Pod is deleted: nobody starts it again but the test.
    pub fn terminate(&self) {
        self.container.give_up().expect("the Pod is started").terminate();
    }

    /// The process that it is now.
    ///
    /// # Panics
    /// When it isn't started.
    pub fn process(&self) -> Arc<Process> {
        self.assert_no_exit();
        self.container.state().process.clone().expect("the Pod is started")
    }

    pub fn name(&self) -> String {
        field(&self.container.object, "metadata.name")
    }

    /// The Pod as the API server gave it.
    pub fn object(&self) -> &PodObject {
        &self.container.object
    }

    /// All that its container has written, over all its starts.
    pub fn logs(&self) -> String {
        read_log(&self.container.folder.join("log"))
    }

    /// Brings Secrets, ConfigMaps and tokens that have changed into the volumes at once.
    ///
    /// # Panics
    /// When one of them isn't there.
    pub async fn sync_volumes(&self) {
        self.container.volumes.fill(&self.container.object).await.expect("what the volumes hold");
    }

    /// The folder that stands for a path of the container, for a look at what is in a volume.
    pub fn host_path(&self, path: &str) -> PathBuf {
        rewrite(path, &self.container.mounts()).into()
    }

    /// The number of a port that the container names.
    ///
    /// # Panics
    /// When it names no such port.
    pub fn port(&self, name: &str) -> u16 {
        self.container.port(name)
    }

    /// Waits until the readiness probe succeeds, and tells the API server so, as the kubelet would.
    ///
    /// # Panics
    /// When the container ends, or isn't ready in time.
    pub async fn until_ready(&self, deadline: Duration) {
        eventually(deadline, format!("Pod {} to be ready", self.name()), async || {
            if !self.container.state().may_exit {
                self.process().must_run();
            }
            self.readiness().await
        })
        .await;
        self.report_ready(true).await;
    }

    /// Asks the readiness probe once; `Err` says what it answered.
    pub async fn readiness(&self) -> Result<(), String> {
        self.container.probe(self.container.spec.readiness_probe.as_ref()).await
    }

    /// Asks the liveness probe once; `Err` says what it answered.
    pub async fn liveness(&self) -> Result<(), String> {
        self.container.probe(self.container.spec.liveness_probe.as_ref()).await
    }

    /// Writes the status that a kubelet writes, so that rollouts go on and a Deployment becomes available.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub async fn report_ready(&self, ready: bool) {
        self.container.report(ready, None).await.expect("its status");
    }

    /// # Panics
    /// When the container has exited by itself, and the test didn't say that it may: with the end of its log.
    pub fn assert_no_exit(&self) {
        let exit = {
            let state = self.container.state();
            state.exits.first().filter(|_| !state.may_exit).cloned()
        };
        let Some(exit) = exit else { return };
        let log = self.logs();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        panic!("Pod {} exited by itself ({}); the end of its log:\n{tail}", self.name(), exit.said);
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.stop_looking();
        // The kubelet may hold the process for an instant yet.
        if let Some(process) = self.container.give_up() {
            process.kill();
        }
        self.container.state().process = None;
        if !std::thread::panicking() {
            self.assert_no_exit();
        }
    }
}
