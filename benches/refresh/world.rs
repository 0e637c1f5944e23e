//! The simulated world: links with tokens, hosts that answer or don't, and passes that take time.

use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use applink_operator::link::ended::Ended;
use applink_operator::link::run::queue::{Lane, Queue, Taken};
use applink_operator::link::turns::{Limits, Permit, Turn, Turns, Who};
use applink_operator::link::write_rate::WriteRate;
use applink_operator::outgoing::{RefreshPolicy, backoff, next_refresh};
use jiff::{SignedDuration, Timestamp};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The operator was away for ten seconds; tokens are of all ages.
    Restart,
    /// All hosts are away for ten minutes, half an hour after the start.
    Outage,
    /// All tokens came due while nothing went for ten minutes.
    AllDue,
    /// Somebody sets the clock an hour forward, half an hour after the start.
    ClockForward,
    /// The same, ten years back.
    ClockBack,
}

impl Scenario {
    pub const ALL: [Self; 5] =
        [Self::Restart, Self::Outage, Self::AllDue, Self::ClockForward, Self::ClockBack];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "after a restart",
            Self::Outage => "all hosts away for 10 minutes",
            Self::AllDue => "all due at once after an outage of 10 minutes",
            Self::ClockForward => "the clock is set an hour forward",
            Self::ClockBack => "the clock is set ten years back",
        }
    }
}

/// The operator's defaults.
const CONCURRENCY: usize = 64;
const RESYNC: Duration = Duration::from_secs(600);
/// What a pass takes to look around, and to write what it got.
const LOOK: Duration = Duration::from_millis(10);
const WRITE: Duration = Duration::from_millis(20);
const LIFETIME: i64 = 3600;
/// So long is simulated.
pub const SPAN: Duration = Duration::from_secs(2 * 3600);
/// When something happens, where something does.
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// A tenth of the links belong to one host, the rest to twenty others; they are in 200 namespaces.
const HOSTS: u64 = 21;
const NAMESPACES: u64 = 200;
/// Links that are made after a minute, at the host that has most.
const NEW: usize = 100;

struct Link {
    host: u64,
    issued: Option<Timestamp>,
    expires: Timestamp,
    failures: u32,
    /// Whether the token's end was counted.
    ended: bool,
}

enum Event {
    Decide(usize, Option<Permit>),
    Answered(usize, bool, Permit),
    Make(usize),
    SetClock(SignedDuration),
}

/// When, and which came first among equals. A heap gives the largest, so the order is turned round.
struct At(Instant, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// From due to sent, in ms, for each first try.
    pub lateness: Vec<u32>,
    /// From made to sent, in ms, for the links that were made on the way.
    pub new_waits: Vec<u32>,
    /// Requests a second after the start.
    pub seconds: Vec<u32>,
    /// Requests to one host a second.
    pub by_host: BTreeMap<(u64, u64), u32>,
    /// When the last request was sent that came more than five seconds late.
    pub last_late: Duration,
    pub early: usize,
    pub failed: usize,
    /// Tokens that ended before they were replaced.
    pub expired: usize,
    pub looks: usize,
}

pub struct World {
    pub timers: usize,
    pub scenario: Scenario,
    pub seen: Seen,
    queue: Queue<usize>,
    turns: Turns,
    writes: WriteRate,
    links: Vec<Link>,
    events: BinaryHeap<At>,
    start: Instant,
    now: Instant,
    epoch: Timestamp,
    offset: SignedDuration,
    counter: u64,
    random: u64,
}

/// splitmix64, so that every run is the same.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl World {
    pub fn new(timers: usize, scenario: Scenario) -> Self {
        let start = Instant::now();
        // As the chart has them.
        let writes = WriteRate::new(50);
        let turns = Turns::budgeted(Limits::default(), 10, writes.clone());
        let mut world = Self {
            timers,
            scenario,
            seen: Seen { seconds: vec![0; SPAN.as_secs() as usize + 1], ..Seen::default() },
            queue: Queue::new(CONCURRENCY, turns.clone()),
            turns,
            writes,
            links: Vec::with_capacity(timers),
            events: BinaryHeap::new(),
            start,
            now: start,
            epoch: "2026-11-22T00:00:00Z".parse().expect("time"),
            offset: SignedDuration::ZERO,
            counter: 0,
            random: 1,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for i in 0..self.timers {
            let host = if i.is_multiple_of(10) { 0 } else { 1 + mix(i as u64) % (HOSTS - 1) };
            let share = f64::from((mix(!(i as u64)) >> 32) as u32) / f64::from(u32::MAX);
            // With the jitter in it, so that due times and not only ages are spread.
            let cycle =
                next_refresh(self.epoch, self.later(self.epoch, LIFETIME), RefreshPolicy::Default, i as u64)
                    .duration_since(self.epoch)
                    .as_secs_f64();
            let age = match self.scenario {
                // Due within the next cycle, or within the ten seconds that nobody was there.
                Scenario::AllDue => cycle + 600.0 * share,
                Scenario::Restart => cycle - (share * (cycle + 10.0) - 10.0),
                _ => cycle - share * cycle,
            };
            let age = SignedDuration::from_millis((age * 1000.0) as i64);
            let issued = self.epoch.checked_sub(age).expect("time");
            let expires = self.later(issued, LIFETIME);
            self.links.push(Link { host, issued: Some(issued), expires, failures: 0, ended: false });
        }
        self.look_at_all();
        for i in self.timers..self.timers + NEW {
            let expires = Timestamp::UNIX_EPOCH;
            self.links.push(Link { host: 0, issued: None, expires, failures: 0, ended: false });
            self.at(Duration::from_secs(60) + Duration::from_millis(10 * i as u64 % 1000), Event::Make(i));
        }
        let years = SignedDuration::from_hours(24 * 365 * 10);
        match self.scenario {
            Scenario::ClockForward => self.at(HALF_AN_HOUR, Event::SetClock(SignedDuration::from_hours(1))),
            Scenario::ClockBack => self.at(HALF_AN_HOUR, Event::SetClock(-years)),
            _ => {}
        }
    }

    fn later(&self, time: Timestamp, secs: i64) -> Timestamp {
        time.checked_add(SignedDuration::from_secs(secs)).expect("time")
    }

    /// As the operator does it when it starts, and when the clock was set: who is due comes first.
    fn look_at_all(&mut self) {
        let mut all: Vec<usize> = (0..self.links.len()).collect();
        all.sort_by_cached_key(|i| self.due(*i));
        for i in all {
            self.queue.add(i, self.lane(i), self.now);
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.schedule(self.start + after, event);
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.counter += 1;
        self.events.push(At(at, self.counter, event));
    }

    fn wall(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.now - self.start).expect("short");
        self.epoch.checked_add(passed + self.offset).expect("time")
    }

    fn due(&self, i: usize) -> Timestamp {
        let link = &self.links[i];
        let Some(issued) = link.issued else { return self.epoch };
        // As the operator has it: a token of the future comes from a clock that was set.
        if issued > self.later(self.wall(), 300) {
            return self.wall();
        }
        next_refresh(issued, link.expires, RefreshPolicy::Default, i as u64)
    }

    fn lane(&self, i: usize) -> Lane {
        let link = &self.links[i];
        Lane { waits_for: format!("|host-{}", link.host), owner: self.owner(i), new: link.issued.is_none() }
    }

    fn owner(&self, i: usize) -> String {
        format!("team-{}", mix(i as u64 ^ 0xabcd) % NAMESPACES)
    }

    fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }

    /// What there was to catch up with was over by then: since the hosts were back, or the clock was set.
    pub fn caught_up(&self) -> Duration {
        let from = match self.scenario {
            Scenario::Restart | Scenario::AllDue => Duration::ZERO,
            Scenario::Outage => HALF_AN_HOUR + TEN_MINUTES,
            Scenario::ClockForward | Scenario::ClockBack => HALF_AN_HOUR,
        };
        self.seen.last_late.saturating_sub(from)
    }

    /// Whether the hosts answer.
    fn is_up(&self) -> bool {
        let at = self.now - self.start;
        self.scenario != Scenario::Outage || at < HALF_AN_HOUR || at >= HALF_AN_HOUR + TEN_MINUTES
    }

    /// Runs it, event by event.
    pub fn run(&mut self) {
        let end = self.start + SPAN;
        while self.now < end {
            while let Some(Taken { key, permit }) = self.queue.take(self.now) {
                self.seen.looks += 1;
                self.schedule(self.now + LOOK, Event::Decide(key, permit));
            }
            let event = self.events.peek().map(|e| e.0);
            let due = self.queue.next_due(self.now);
            self.now = event.into_iter().chain(due).min().expect("there is always a timer").max(self.now);
            while self.events.peek().is_some_and(|e| e.0 <= self.now) {
                let At(.., event) = self.events.pop().expect("peeked");
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Make(i) => self.queue.add(i, self.lane(i), self.now),
            Event::SetClock(step) => {
                self.offset += step;
                self.look_at_all();
            }
            Event::Decide(i, permit) => self.decide(i, permit),
            Event::Answered(i, well, permit) => self.answered(i, well, permit),
        }
    }

    fn done(&mut self, i: usize, again: Duration, turn: Option<Turn>) {
        let regular =
            RESYNC.mul_f64(1.0 - 0.1 * f64::from((self.random() >> 32) as u32) / f64::from(u32::MAX));
        let ended = Ended { again: Some(again.min(regular)), turn, ..Ended::default() };
        self.queue.done(&i, self.lane(i), self.now, ended);
    }

    fn until(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.wall())).ok().filter(|d| !d.is_zero()).unwrap_or(RESYNC)
    }

    fn decide(&mut self, i: usize, permit: Option<Permit>) {
        let (wall, due) = (self.wall(), self.due(i));
        if self.links[i].issued.is_some() && due > wall {
            return self.done(i, self.until(due), None);
        }
        let host = format!("host-{}", self.links[i].host);
        let owner = self.owner(i);
        let who = Who { owner: &owner, client: "us" };
        let Some(permit) = permit.or_else(|| self.turns.ask(&host, who, self.now)) else {
            let link = &self.links[i];
            let turn = Turn { host, client: "us".into(), new: link.issued.is_none(), deadline: link.expires };
            return self.done(i, self.until(self.links[i].expires), Some(turn));
        };
        let second = (self.now - self.start).as_secs();
        self.seen.seconds[second as usize] += 1;
        *self.seen.by_host.entry((self.links[i].host, second)).or_default() += 1;
        let late = Duration::try_from(wall.duration_since(due)).unwrap_or_default();
        let link = &mut self.links[i];
        if link.failures == 0 {
            match link.issued {
                Some(_) => self.seen.lateness.push(millis(late)),
                None => self.seen.new_waits.push(millis(late.saturating_sub(Duration::from_secs(60)))),
            }
        }
        // By the clock that nobody sets, it was the same token all along.
        if link.issued.is_some() && link.expires <= wall && !link.ended {
            link.ended = true;
            self.seen.expired += 1;
        }
        if late > Duration::from_secs(5) {
            self.seen.last_late = self.now - self.start;
        }
        self.seen.early += usize::from(late.is_zero() && due > wall);
        let well = self.is_up() && !self.random().is_multiple_of(100);
        let takes = Duration::from_millis(50 + self.random() % 250) + WRITE;
        self.schedule(self.now + takes, Event::Answered(i, well, permit));
    }

    fn answered(&mut self, i: usize, well: bool, mut permit: Permit) {
        permit.answered(well, self.now);
        drop(permit);
        let jitter = self.random();
        let link = &mut self.links[i];
        if !well {
            let n = link.failures;
            link.failures += 1;
            self.seen.failed += 1;
            // As a pass has it.
            return self.done(i, backoff(n, jitter).mul_f64(if n < 3 { 0.2 } else { 1.0 }), None);
        }
        // Secret and status; where refresh tokens rotate, twice the grant.
        (0..3).for_each(|_| self.writes.saw(self.now));
        let issued = self.wall();
        let expires = self.later(issued, LIFETIME);
        self.links[i] = Link { issued: Some(issued), expires, failures: 0, ended: false, ..self.links[i] };
        let due = self.due(i);
        self.done(i, self.until(due), None);
    }
}
