//! Argon2 on threads of its own. Each has its memory once, when it first needs it, and keeps it: what comes and goes is
//! kept by the allocator in pieces, a share for each thread that ever was.

use super::{HashingFailed, Who};
use crate::server::random;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, RECOMMENDED_SALT_LEN, Version};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;

/// What a thread works in.
type Memory = Vec<Block>;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// Who waits for a thread. Each who asks gets one turn after the other: many tries of one make nobody else wait for more
/// than one of them.
#[derive(Default)]
struct Line {
    jobs: HashMap<Who, VecDeque<Job>>,
    turns: VecDeque<Who>,
    over: bool,
}

impl Line {
    fn push(&mut self, who: &Who, job: Job) {
        let own = self.jobs.entry(who.clone()).or_default();
        if own.is_empty() {
            self.turns.push_back(who.clone());
        }
        own.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let who = self.turns.pop_front()?;
        let own = self.jobs.get_mut(&who)?;
        let job = own.pop_front();
        if own.is_empty() {
            self.jobs.remove(&who);
        } else {
            self.turns.push_back(who);
        }
        job
    }
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    more: Condvar,
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the pool is gone.
    fn work(&self) {
        let mut memory = Memory::new();
        loop {
            let mut line = self.line();
            let job = loop {
                if line.over {
                    return;
                }
                match line.pop() {
                    Some(job) => break job,
                    None => line = self.more.wait(line).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(line);
            // Whoever waits for it hears of a panic since its answer's sender is gone; the thread is needed by others.
            let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
        }
    }
}

/// The threads.
pub struct Threads(Arc<Shared>);

impl Threads {
    /// So many, at most.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(number: usize) -> std::io::Result<Self> {
        let threads = Self(Arc::default());
        for _ in 0..number.max(1) {
            let shared = threads.0.clone();
            std::thread::Builder::new().name("argon2".to_owned()).spawn(move || shared.work())?;
        }
        Ok(threads)
    }

    /// The form to keep of a secret.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub async fn hash(&self, who: &Who, secret: &SecretString) -> Result<String, HashingFailed> {
        let secret = secret.clone();
        self.run(who, move |memory| hash(memory, &secret)).await
    }

    /// Whether `secret` is the one that `stored` was made of.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub async fn verify(
        &self,
        who: &Who,
        stored: &str,
        secret: &SecretString,
    ) -> Result<bool, HashingFailed> {
        let (stored, secret) = (stored.to_owned(), secret.clone());
        self.run(who, move |memory| verify(memory, &stored, &secret)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        who: &Who,
        work: impl FnOnce(&mut Memory) -> Result<T, HashingFailed> + Send + 'static,
    ) -> Result<T, HashingFailed> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            // A request that was given up needs no answer.
            if !tell.is_closed() {
                let _ = tell.send(work(memory));
            }
        });
        self.0.line().push(who, job);
        self.0.more.notify_one();
        told.await.unwrap_or_else(|_| Err(HashingFailed("its thread panicked".to_owned())))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.line().over = true;
        self.0.more.notify_all();
    }
}

fn failed(error: impl ToString) -> HashingFailed {
    HashingFailed(error.to_string())
}

fn hash(memory: &mut Memory, secret: &SecretString) -> Result<String, HashingFailed> {
    let argon2 = Argon2::default();
    let salt = Salt::new(&random::bytes::<RECOMMENDED_SALT_LEN>()?).map_err(failed)?;
    let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
    compute(&argon2, memory, secret, &salt, &mut out)?;
    let made = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(argon2.params()).map_err(failed)?,
        salt: Some(salt),
        hash: Some(Output::new(&out).map_err(failed)?),
    };
    Ok(made.to_string())
}

fn verify(memory: &mut Memory, stored: &str, secret: &SecretString) -> Result<bool, HashingFailed> {
    let stored = PasswordHash::new(stored).map_err(failed)?;
    let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
        return Err(failed("the stored form has no salt or no hash"));
    };
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).map_err(failed)?;
    let version = stored.version.map(Version::try_from).transpose().map_err(failed)?;
    let params = Params::try_from(&stored).map_err(failed)?;
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    let mut buffer = [0; Output::MAX_LENGTH];
    let out = buffer.get_mut(..expected.len()).ok_or_else(|| failed("the stored hash is too long"))?;
    compute(&argon2, memory, secret, salt, out)?;
    Ok(out.ct_eq(expected.as_bytes()).into())
}

fn compute(
    argon2: &Argon2<'_>,
    memory: &mut Memory,
    secret: &SecretString,
    salt: &Salt,
    out: &mut [u8],
) -> Result<(), HashingFailed> {
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        // Exactly: a vector that grows by itself takes more.
        memory.reserve_exact(blocks - memory.len());
        memory.resize(blocks, Block::new());
    }
    let secret = secret.expose_secret().as_bytes();
    argon2.hash_password_into_with_memory(secret, salt, out, &mut memory[..]).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[test]
    fn the_forms_are_those_of_the_library() {
        let mut memory = Memory::new();
        let right = secret("the right one, canary");
        let ours = hash(&mut memory, &right).expect("hashed");
        assert!(Argon2::default().verify_password(b"the right one, canary", ours.as_str()).is_ok());
        let theirs: PasswordHash = Argon2::default().hash_password(b"the right one, canary").expect("hashed");
        for stored in [ours, theirs.to_string()] {
            assert!(verify(&mut memory, &stored, &right).expect("checked"));
            assert!(!verify(&mut memory, &stored, &secret("a wrong one")).expect("checked"));
        }
        assert_eq!(memory.capacity(), Params::DEFAULT.block_count());
        assert!(verify(&mut memory, "$argon2id$nonsense", &right).is_err());
    }

    #[test]
    fn who_asks_often_makes_others_wait_for_one_turn() {
        let mut line = Line::default();
        let (done, seen) = std::sync::mpsc::channel();
        let mut push = |who: &Who, name: &'static str| {
            let done = done.clone();
            line.push(who, Box::new(move |_| done.send(name).expect("received")));
        };
        let (many, few) = (Who::testing("many"), Who::testing("few"));
        for name in ["m1", "m2", "m3"] {
            push(&many, name);
        }
        push(&few, "f1");
        push(&few, "f2");
        while let Some(job) = line.pop() {
            job(&mut Memory::new());
        }
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["m1", "f1", "m2", "f2", "m3"]);
        assert!(line.jobs.is_empty() && line.turns.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let threads = Threads::start(1).expect("a thread");
        let who = Who::testing("c");
        let work = |_: &mut Memory| -> Result<(), _> { panic!("canary") };
        assert!(threads.run(&who, work).await.is_err());
        let stored = threads.hash(&who, &secret("the right one, canary")).await.expect("hashed");
        assert!(threads.verify(&who, &stored, &secret("the right one, canary")).await.expect("checked"));
    }
}
