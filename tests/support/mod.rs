//! What the tests and the demo stand on: a real Kubernetes control plane in plain processes, and the operator
//! run in it as the chart would run it.
//!
//! - [`wait`]: waits for a condition, never for a time.
//! - [`process`]: child processes that can't outlive this one, and the folder they live in.
//! - [`ports`]: free ports.
//! - [`programs`]: the pinned programs that `tests/rig/build.sh` builds.
//! - [`pki`]: the keys and certificates of a control plane.
//! - [`plane`]: etcd, kube-apiserver and kube-controller-manager; kubectl and Helm against them.
//! - [`access`]: how a control plane is reached, and clients of its administrator.
//! - [`admin_double`]: a double of the provider's admin API, for answers that the real one doesn't give.
//! - [`audit`]: what the API server was asked, by whom, and what it answered.
//! - [`auth_servers`]: other people's authorization servers.
//! - [`bench`]: links of every kind, and an operator whose every write passes a proxy.
//! - [`bitbucket_stub`]: a contract stub of Bitbucket's client API: no Bitbucket can run here.
//! - [`browser`]: a real Chromium, without a window.
//! - [`chart`]: a Helm release of the chart, and the Pods that it leads to.
//! - [`clients`]: other people's OAuth clients.
//! - [`container`]: the one container of a Pod: what the chart gives it, and its process.
//! - [`disk`]: a disk that fails when a test says so.
//! - [`fault_proxy`]: stands before a real provider and does one request wrong.
//! - [`hydra`]: Ory Hydra.
//! - [`keycloak`]: Keycloak, one for all tests, and a realm for each.
//! - [`keys`]: key pairs in every form that people keep them in.
//! - [`kubelet`]: starts a Pod's container again when it exits, and keeps its volumes current.
//! - [`neighbours`]: one namespace at full tilt in each of many ways, and what another one notices of it.
//! - [`objects`]: objects applied, changed, read and deleted through the API, as kubectl does it.
//! - [`pod`]: one Pod, run as a kubelet would: its arguments, environment and probes.
//! - [`proxy`]: stands between the operator and what it calls, counts its writes, and can kill it at one.
//! - [`stage`]: operator and bundled provider, installed and running.
//! - [`sweep`]: the operator killed at each of its writes, for every kind of link and deed.
//! - [`tls_front`]: TLS before a plain service, with a private authority and certificates asked of callers.
//! - [`token_server`]: a double of an authorization server, for what no real one can be brought to say.
//! - [`volumes`]: a Pod's volumes as folders.

// Each binary that includes this folder uses a part of it.
#![allow(dead_code)]

pub mod access;
pub mod admin_double;
pub mod audit;
pub mod auth_servers;
pub mod authorize;
pub mod bench;
pub mod bitbucket_stub;
pub mod browser;
pub mod chart;
pub mod clients;
pub mod consent_app;
pub mod container;
pub mod disk;
pub mod fault_proxy;
pub mod honesty;
pub mod hydra;
pub mod keycloak;
pub mod keys;
pub mod kubelet;
pub mod neighbours;
pub mod objects;
pub mod person;
pub mod pki;
pub mod plane;
pub mod pod;
pub mod ports;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod spoof;
pub mod stage;
pub mod sweep;
pub mod tls_front;
pub mod token_server;
pub mod volumes;
pub mod wait;
