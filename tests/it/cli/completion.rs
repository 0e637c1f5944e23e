//! Help, completion, and the life as a plugin of kubectl.

use std::process::{Command, Stdio};

use super::{binary, command, offline};
use crate::support::plane::ControlPlane;
use crate::support::programs::run;

const TOOLS: [&str; 6] = ["status", "doctor", "credentials", "rotate", "lint", "completion"];

#[tokio::test(flavor = "multi_thread")]
async fn help_names_every_tool_and_every_tool_its_exit_codes() {
    let help = offline(&["--help"]).await.ok();
    for tool in TOOLS {
        assert!(help.contains(&format!("  {tool} ")), "{tool}: {help}");
    }
    assert!(help.contains("Exit codes"), "{help}");
    for tool in ["status", "doctor", "credentials", "rotate", "lint"] {
        let help = offline(&[tool, "--help"]).await.ok();
        assert!(help.contains("Exit codes: 0"), "{tool}: {help}");
        assert!(!help.contains('\x1b'), "{tool}: {help:?}");
    }
    let wrong = offline(&["status", "--nonsense"]).await;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""), "{wrong:?}");
    assert!(wrong.stderr.contains("--nonsense"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_scripts_are_scripts_of_their_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = offline(&["completion", shell]).await.ok();
        for tool in TOOLS {
            assert!(script.contains(tool), "{shell}: {tool}");
        }
    }
    // What bash makes of it, by bash itself.
    let mut bash = Command::new("bash");
    bash.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let line = format!(
        "source <({} completion bash); COMP_WORDS=(applink cred); COMP_CWORD=1; _applink applink cred applink; echo ${{COMPREPLY[@]}}",
        binary().display()
    );
    bash.args(["-c", &line]);
    assert_eq!(run(bash).await.ok().trim(), "credentials");
    assert_eq!(offline(&["completion", "tcsh"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_it_as_a_plugin() {
    let plane = ControlPlane::shared().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(binary(), folder.path().join("kubectl-applink")).expect("a link");
    let mut kubectl = plane.command("kubectl");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    kubectl.env("PATH", path).args(["applink", "status", "--help"]);
    let help = run(kubectl).await.ok();
    assert!(help.contains("Usage: kubectl applink status"), "{help}");
    let mut plain = command(["status", "--help"]);
    plain.env("NO_COLOR", "1");
    assert!(run(plain).await.ok().contains("Usage: applink status"));
}
