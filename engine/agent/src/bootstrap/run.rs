//! A bootstrap from its beginning to its end. What it goes by are facts: what the API server answers, what init did, and what lies in the
//! kubelet's folder. Until the machine has another config nothing has changed; from then on all of it is noted on the disk, so that it is
//! seen through, or undone, whatever happens to the agent.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use keel_control::{Answer, Apply, ApplyMode, Control, Fate, GenerationResult, History, Layer};
use keel_proto::v1::bootstrap_response::What;
use keel_proto::v1::{
    BootstrapFault as Fault, BootstrapStage as Stage, apply_response::What as Applied,
};
use tokio::time::{Instant, sleep};

use super::Bootstraps;
use super::facts::{self, Own};
use super::files;
use super::job::{Failed, Job, fault};
use super::layer::Named;
use super::note::Note;
use super::wish::{Credentials, Wish};
use crate::changes;
use crate::cluster::{Http, JoinErrorKind, Places, Server, Token, verify, write};
use crate::log::chain;

/// How often the facts are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// How often the API server is asked for the kubelet's request.
const ASK: Duration = Duration::from_secs(1);

/// After this long without an approval it is said what waits for whom.
const IMPATIENT: Duration = Duration::from_secs(10);

/// How much longer init waits than the agent does: the agent can say what is wrong, init only that nobody said that all is well.
const SPARE: Duration = Duration::from_secs(60);

/// How long a registered node is watched for being Ready.
const SETTLES: Duration = Duration::from_secs(120);

/// How long init may take to take back a config.
pub(super) const UNDONE: Duration = Duration::from_secs(90);

/// How often it is tried to note that the node is registered.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the Node of a machine that is gone may stay before this one's kubelet makes it its own.
const REPLACED: Duration = Duration::from_secs(60);

/// How long an agent that has started anew waits at least for the node to be registered.
const ANEW: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) author: String,
    pub(crate) over: Option<IpAddr>,
}

/// A cluster that was verified, and how the node gets in.
pub(super) struct Way {
    note: Note,
    token: Option<Token>,
    /// Requests of that name that were there before.
    old: BTreeSet<String>,
    /// Whether the cluster has a Node of that name whose machine is gone, be it Ready still.
    gone: bool,
}

/// What init says of a config that was to be tried.
#[derive(Debug)]
pub(super) enum Trial {
    UnderWay,
    Waits,
    Good,
    Undone(String),
}

impl Bootstraps {
    /// Carries out a wish, and tells of it.
    pub(super) async fn run(&self, job: &Job, wish: Wish, named: Named, caller: Caller) {
        let mut way = match self.verified(job, &wish, &named).await {
            Ok(way) => way,
            Err(failed) => return job.failed(&failed, None),
        };
        if let Err(failed) = self.take_on(job, &wish, &named, &mut way, &caller).await {
            return self.take_back(job, &way.note, failed).await;
        }
        self.see_through(job, way).await;
    }

    /// Tells what a wish would do, as long as somebody listens.
    pub(super) async fn rehearse(&self, job: &Job, wish: Wish, named: Named, caller: Caller) {
        let told = async {
            let way = self.verified(job, &wish, &named).await?;
            self.plan(job, &wish, &named, &way.note, &caller, None).await
        };
        tokio::select! {
            told = told => match told {
                Ok(_) => job.over(),
                Err(failed) => job.failed(&failed, None),
            },
            () = job.unheard() => {}
        }
    }

    /// Sees a bootstrap through that was under way when the agent ended.
    pub(super) async fn resume(&self, job: &Job, mut note: Note) {
        note.generation = self.number(&note).await;
        if note.generation.is_none() {
            let why = "the agent ended before the machine had another config";
            return self.take_back(job, &note, Failed::new(Fault::Config, why)).await;
        }
        // The time that the agent was away is not the kubelet's.
        note.until = note.until.max(SystemTime::now() + ANEW);
        job.stage(Stage::Unspecified, note.generation, "the agent has started anew, and goes on");
        let text = std::fs::read_to_string(self.places.bootstrap()).unwrap_or_default();
        let token = crate::cluster::Join::read(&text).ok().and_then(|join| join.token);
        self.see_through(job, Way { note, token, old: BTreeSet::new(), gone: false }).await;
    }

    /// Reaches the API server and verifies it, and shows it the credentials. Changes nothing.
    async fn verified(&self, job: &Job, wish: &Wish, named: &Named) -> Result<Way, Failed> {
        let api_server = &wish.api_server;
        job.stage(Stage::Reaching, None, format!("reaching the API server at {api_server}"));
        let token = wish.credentials.token();
        let verified = verify(api_server, &wish.ca, token).await;
        let verified = verified.map_err(|error| Failed::new(fault(&error.kind), chain(&error)))?;
        let joins = |kind: JoinErrorKind| Failed::new(fault(&kind), chain(&kind));
        let server = Server::parse(api_server).map_err(joins)?;
        let http = Http::verified(server, &verified.ca).map_err(joins)?;
        let node = &job.node_name;
        // Most clusters let nobody see Nodes who is not one. It is looked at again with the node's own certificate.
        let mut gone = false;
        if let Some(token) = token
            && let Ok(Some(there)) = facts::node(&http, Some(token), node).await
            && there.is_of_another()
        {
            gone = facts::is_gone(&http, token, node).await;
            if !gone {
                return Err(taken(node));
            }
        }
        let old = match token {
            Some(token) => facts::requests(&http, token, node).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let what = match token {
            Some(_) => "it is the cluster's, and takes the token",
            None => "it is the cluster's",
        };
        job.stage(Stage::Verified, None, format!("verified the API server: {what}"));
        let note = Note {
            api_server: api_server.clone(),
            node_name: node.clone(),
            ca: verified.ca,
            generation: None,
            until: SystemTime::now() + wish.timeout,
            named_before: named.any(),
            had_own: false,
            had_ca: false,
            given: None,
        };
        let old = old.into_iter().map(|it| it.name).collect();
        Ok(Way { note, token: token.cloned(), old, gone })
    }

    /// Asks init what the cluster's config would do to the machine; with a digest, to do it.
    async fn plan(
        &self,
        job: &Job,
        wish: &Wish,
        named: &Named,
        note: &Note,
        caller: &Caller,
        base: Option<String>,
    ) -> Result<keel_control::Applied, Failed> {
        let wrong = |why: String| Failed::new(Fault::Config, why);
        let config = self.init.ask(async |init| init.config(None).await).await;
        let config = config.map_err(|error| wrong(chain(&error)))?.text;
        let name = wish.node_name.as_deref();
        let patch = named.instead(&wish.api_server, &note.ca, &wish.credentials, name);
        let layer = |name: &str, text: String| Layer { name: name.to_owned(), text };
        let dry_run = base.is_none();
        let within = wish.timeout + SPARE;
        let ask = Apply {
            layers: vec![layer("the node's config", config), layer("bootstrap", patch)],
            secrets: None,
            base,
            dry_run,
            mode: ApplyMode::Try,
            timeout_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            author: caller.author.clone(),
            reason: reason(&wish.api_server),
            wait: false,
            over: caller.over,
            keep_secrets: true,
        };
        let answer = self.init.ask(async |init| init.apply(ask).await).await;
        let applied = match answer.map_err(|error| wrong(chain(&error)))? {
            Answer::Planned(applied) => applied,
            findings @ Answer::Invalid(_) => {
                if let Some(Applied::Findings(findings)) = changes::answer(findings).what {
                    job.tell(What::Findings(findings));
                }
                return Err(wrong("the machine config with this cluster in it is refused".into()));
            }
        };
        if dry_run == wish.dry_run
            && let Some(Applied::Plan(plan)) =
                changes::answer(Answer::Planned(applied.clone())).what
        {
            job.tell(What::Plan(plan));
        }
        Ok(applied)
    }

    /// Gives the machine the cluster's config, on trial.
    async fn take_on(
        &self,
        job: &Job,
        wish: &Wish,
        named: &Named,
        way: &mut Way,
        caller: &Caller,
    ) -> Result<(), Failed> {
        let rehearsed = self.plan(job, wish, named, &way.note, caller, None).await?;
        if rehearsed.plan.needs_reboot {
            let why = "the machine would have to reboot for it: a config that was kept for the next boot goes first; reboot, and bootstrap again";
            return Err(Failed::new(Fault::Config, why));
        }
        let disk = |error: std::io::Error| {
            Failed::new(Fault::Config, format!("the data partition cannot be written: {error}"))
        };
        way.note.had_own = files::has_own(&self.places);
        way.note.had_ca = self.places.ca().exists();
        way.note.given = files::given(&self.places);
        way.note.keep(&self.places).map_err(disk)?;
        // From here on the node does not register by itself; it may have done so since somebody asked for this.
        if let Some(joined) = self.joined(named).filter(|it| !wish.force && !it.is(wish)) {
            Note::remove(&self.places).map_err(disk)?;
            let why = format!("the node has joined the cluster at {} meanwhile", joined.api_server);
            return Err(Failed::new(Fault::Config, why));
        }
        // Credentials of another cluster, or ones that have expired, would keep the kubelet from asking for new ones.
        files::put_aside(&self.places).map_err(disk)?;
        if let Credentials::Kubeconfig(_) = wish.credentials {
            // No unit writes it then.
            write(&self.places.ca(), &way.note.ca).map_err(disk)?;
        }
        let base = Some(rehearsed.plan.base);
        let applied = self.plan(job, wish, named, &way.note, caller, base).await?;
        way.note.generation = applied.generation.filter(|_| applied.fate != Fate::Nothing);
        way.note.keep(&self.places).map_err(disk)
    }

    /// Waits for the node to be registered, and then for it to be Ready; takes all of it back if it is not registered in time.
    pub(super) async fn see_through(&self, job: &Job, way: Way) {
        let own = match self.registered(job, &way).await {
            Ok(own) => own,
            Err(failed) => return self.take_back(job, &way.note, failed).await,
        };
        let Note { api_server, ca, node_name, generation, .. } = &way.note;
        if let Err(failed) = self.holds(*generation).await {
            return self.take_back(job, &way.note, failed).await;
        }
        close(job, &self.places, &way.note).await;
        let text = format!(
            "registered as {node_name}: from now on the cluster's certificates alone get in"
        );
        job.stage(Stage::Registered, *generation, text);
        let until = Instant::now() + SETTLES;
        let mut says = "it could not be asked for".to_owned();
        while Instant::now() < until {
            match own.node(api_server, ca).await {
                Ok(Some(node)) if node.ready => {
                    job.stage(Stage::Ready, *generation, format!("{node_name} is Ready"));
                    return job.over();
                }
                Ok(Some(node)) => says = node.says,
                Ok(None) => says = "its Node is gone".to_owned(),
                Err(error) => says = chain(&error),
            }
            sleep(ASK).await;
        }
        let text = format!("{node_name} is registered, and not Ready yet: {says}");
        job.stage(Stage::NotReady, *generation, text);
        job.over();
    }

    /// Waits for the facts that a registration is made of.
    async fn registered(&self, job: &Job, way: &Way) -> Result<Own, Failed> {
        let note = &way.note;
        let generation = note.generation;
        let server = Server::parse(&note.api_server);
        let http = server.and_then(|server| Http::verified(server, &note.ca));
        let http = http.map_err(|kind| Failed::new(fault(&kind), chain(&kind)))?;
        let mut reached = Stage::Verified;
        let mut asked: Option<facts::Asked> = None;
        let (mut ask_at, mut since) = (Instant::now(), None::<Instant>);
        let mut impatient = false;
        let (mut last_word, mut taken_since) = (None, None::<Instant>);
        loop {
            if let Some(number) = generation {
                match self.trial(number).await {
                    Ok(Trial::Undone(why)) => return Err(Failed::new(Fault::Config, why)),
                    Ok(Trial::Waits | Trial::Good) if reached < Stage::Applied => {
                        reached = Stage::Applied;
                        let text = format!("config {number} is applied, on trial");
                        job.stage(reached, generation, text);
                    }
                    _ => {}
                }
            }
            let own = Own::read(&self.places).filter(|_| self.places.kubeconfig().exists());
            if own.is_none() && Instant::now() >= ask_at {
                ask_at = Instant::now() + ASK;
                if let Some(token) = &way.token
                    && let Some(all) = facts::requests(&http, token, &note.node_name).await
                {
                    let new = all.into_iter().filter(|it| !way.old.contains(&it.name));
                    asked = new.max_by(|a, b| a.made.cmp(&b.made)).or(asked);
                }
            }
            let sent = asked.is_some()
                || own.is_some()
                || self.places.kubelet.join("pki/kubelet-client.key.tmp").exists();
            if sent && reached < Stage::Requested {
                reached = Stage::Requested;
                since = Some(Instant::now());
                let text = match &asked {
                    Some(asked) => format!("the kubelet asks for its certificate: {}", asked.name),
                    None => "the kubelet asks for its certificate".to_owned(),
                };
                job.stage(reached, generation, text);
            }
            if let Some(why) = asked.as_ref().and_then(|asked| asked.denied.as_ref()) {
                let name = asked.as_ref().map(|asked| asked.name.as_str()).unwrap_or_default();
                let why = format!("the cluster denied the kubelet's request {name}: {why}");
                return Err(Failed::new(Fault::Denied, why));
            }
            if let Some(own) = own {
                if reached < Stage::Approved {
                    reached = Stage::Approved;
                    job.stage(reached, generation, "approved: the kubelet has its certificate");
                }
                match own.node(&note.api_server, &note.ca).await {
                    // At once: soon this kubelet writes over what the other one's says.
                    Ok(Some(node)) if node.is_of_another() => {
                        let since = taken_since.get_or_insert_with(Instant::now);
                        if !way.gone || since.elapsed() > REPLACED {
                            return Err(taken(&own.node));
                        }
                    }
                    Ok(Some(_)) => return Ok(own),
                    Ok(None) => last_word = Some("the API server shows no such Node".to_owned()),
                    Err(error) => last_word = Some(chain(&error)),
                }
            } else if !impatient
                && since.is_some_and(|since| since.elapsed() > IMPATIENT)
                && asked.as_ref().is_some_and(|asked| !asked.approved)
            {
                impatient = true;
                let name = asked.as_ref().map(|asked| asked.name.as_str()).unwrap_or_default();
                let text =
                    format!("{name} waits to be approved: kubectl certificate approve {name}");
                job.stage(Stage::Unspecified, generation, text);
            }
            if SystemTime::now() >= note.until {
                return Err(self.too_late(reached, asked.as_ref(), last_word).await);
            }
            sleep(LOOK).await;
        }
    }

    /// What was missing when the time was up.
    async fn too_late(
        &self,
        reached: Stage,
        asked: Option<&facts::Asked>,
        last_word: Option<String>,
    ) -> Failed {
        let (fault, why) = match (reached, asked) {
            (Stage::Requested, Some(asked)) if !asked.approved => (
                Fault::NotApproved,
                format!(
                    "nobody approved the kubelet's request in time: kubectl certificate approve {}, or bind the bootstrap group to system:certificates.k8s.io:certificatesigningrequests:nodeclient",
                    asked.name
                ),
            ),
            (Stage::Requested, Some(asked)) => (
                Fault::NotApproved,
                format!(
                    "{} is approved, and nobody signed it in time: does the controller-manager run?",
                    asked.name
                ),
            ),
            (Stage::Requested, None) => (
                Fault::NotApproved,
                "the kubelet did not get its certificate in time: see `kubectl get csr`".to_owned(),
            ),
            (Stage::Approved, _) => (
                Fault::Kubelet,
                format!(
                    "the kubelet has its certificate, and did not register the node in time: {}",
                    last_word.unwrap_or_default()
                ),
            ),
            _ => (Fault::Kubelet, "the kubelet did not ask for a certificate in time".to_owned()),
        };
        let said = match (fault, reached) {
            (Fault::Kubelet, _) => self.kubelet_says().await,
            _ => String::new(),
        };
        Failed::new(fault, format!("{why}{said}"))
    }

    /// The kubelet's last words, if it is the reason.
    async fn kubelet_says(&self) -> String {
        let kubelet = self.init.ask(async |init| init.unit("kubelet".to_owned()).await).await;
        let Ok(kubelet) = kubelet else {
            return "; there is no unit `kubelet`".to_owned();
        };
        let state = crate::convert::unit_state(kubelet.unit.state).as_str_name().to_lowercase();
        let state = state.trim_start_matches("unit_state_").to_owned();
        let lines = kubelet.last_lines.iter().rev().take(1).map(|line| line.text.clone());
        let line: String = lines.collect();
        let note = kubelet.unit.note.map(|note| format!(" ({note})")).unwrap_or_default();
        match line.is_empty() {
            true => format!("; the kubelet is {state}{note}"),
            false => format!("; the kubelet is {state}{note}, and last wrote: {line}"),
        }
    }

    pub(super) async fn history(&self) -> Option<History> {
        self.init.ask(Control::history).await.ok()
    }

    pub(super) async fn trial(&self, number: u64) -> Result<Trial, ()> {
        let history = self.history().await.ok_or(())?;
        let page = history.generations.iter().find(|page| page.number == number).ok_or(())?;
        Ok(match page.result {
            GenerationResult::Good => Trial::Good,
            GenerationResult::RolledBack => Trial::Undone(format!(
                "config {number} was undone: {}",
                page.note.as_deref().unwrap_or("no reason was noted")
            )),
            _ if history.trial.is_some_and(|trial| trial.generation == number) => Trial::Waits,
            _ => Trial::UnderWay,
        })
    }

    /// Has init keep the config.
    async fn holds(&self, generation: Option<u64>) -> Result<(), Failed> {
        let Some(number) = generation else { return Ok(()) };
        let until = Instant::now() + UNDONE;
        loop {
            match self.trial(number).await {
                Ok(Trial::Good) => return Ok(()),
                Ok(Trial::Undone(why)) => return Err(Failed::new(Fault::Config, why)),
                // What it says is in the history next.
                Ok(Trial::Waits) => drop(self.init.ask(Control::confirm).await),
                Ok(Trial::UnderWay) | Err(()) => {}
            }
            if Instant::now() > until {
                let why = format!("init did not keep config {number}");
                return Err(Failed::new(Fault::Config, why));
            }
            sleep(LOOK).await;
        }
    }
}

/// Has the cluster's certificates alone get in, and the note go. Until that is on the disk the node is as open as it was, and says so.
async fn close(job: &Job, places: &Places, note: &Note) {
    let mut complained = false;
    loop {
        let kept = write(&places.trusted, &note.ca)
            .and_then(|()| files::let_go(places))
            .and_then(|()| Note::remove(places));
        let Err(error) = kept else { return };
        if !complained {
            complained = true;
            let text = format!(
                "the node is registered, and that cannot be noted: who gets in is as before until it can, tried every {} s: {error}",
                AGAIN.as_secs()
            );
            job.stage(Stage::Unspecified, note.generation, text);
        }
        sleep(AGAIN).await;
    }
}

/// What the history says of a config that a bootstrap brought.
pub(super) fn reason(api_server: &str) -> String {
    format!("bootstrap into {api_server}")
}

fn taken(node: &str) -> Failed {
    let why = format!(
        "the name is taken: the cluster has a Node {node} that is Ready and is another machine; give this one another name, or remove that one (kubectl delete node {node})"
    );
    Failed::new(Fault::NameTaken, why)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_closed_before_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet: folder.path().to_owned(),
            trusted: folder.path().join("trust/cluster-ca.crt"),
        };
        // A disk that takes nothing for a while.
        fs::write(folder.path().join("trust"), "").unwrap();
        let job = Job::new(None, "https://a".to_owned(), "n".to_owned());
        let note = Note { ca: "PEM".to_owned(), ..Note::default() };
        let repaired = async {
            sleep(AGAIN * 3).await;
            assert!(!places.trusted.exists());
            fs::remove_file(folder.path().join("trust")).unwrap();
        };
        tokio::join!(close(&job, &places, &note), repaired);
        assert_eq!(fs::read_to_string(&places.trusted).unwrap(), "PEM");
        let stages = job.stages();
        assert_eq!(stages.len(), 1, "{stages:?}");
        assert!(stages[0].text.contains("who gets in is as before"), "{stages:?}");
    }
}
