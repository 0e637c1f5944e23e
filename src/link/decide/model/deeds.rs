//! What each effect does to the world, and what must hold of every one.

use super::*;

impl World {
    /// A secret goes to one service alone; what a person clicked together goes where she put it.
    fn tell(&mut self, service: &'static str, secret: &str) {
        if secret != "clicked-secret" && !secret.is_empty() {
            let first = *self.told.entry(secret.to_owned()).or_insert(service);
            assert_eq!(first, service, "a secret was sent to another service");
        }
    }

    /// Does one effect; checks what must hold of every one.
    pub(in crate::link::decide) fn apply(&mut self, effect: &Effect) -> Result<(), Problem> {
        assert!(!self.finished, "{effect:?} after Finish");
        let service = |w: &Self, at: &Claim| w.place(&at.uid).map(|(_, s)| s);
        match effect {
            Effect::Claim(claims) => {
                self.finalizer = true;
                self.claims.clone_from(claims);
            }
            Effect::Unclaim(claims) => self.claims.clone_from(claims),
            Effect::PutClient(at, put) => {
                assert!(self.finalizer && self.claims.contains(at), "registered without a claim");
                let service = service(self, at)?;
                let found = self.find(service, &put.at);
                assert_eq!(found.is_some(), put.exists, "a plan that saw something else");
                if let Some(there) = found.as_ref().map(|k| &self.clients[k]) {
                    let version = there.version.to_string();
                    assert_eq!(put.version.as_deref(), Some(version.as_str()), "a stale write");
                    let of_us = there.owner.as_ref().is_some_and(|o| o.installation == "ours");
                    let adopts = there.owner.is_none() && put.at.id.as_str() == "clicked";
                    assert!(of_us || adopts || service == "three", "a client that isn't ours was written");
                }
                let version = self.next();
                self.serials.push((service, put.owner.uid.clone(), put.owner.serial));
                let before = found.as_ref().map(|k| self.clients[k].clone());
                let mut told = None;
                let (secret, previous) = match &put.secret {
                    PutSecret::Public => (None, None),
                    PutSecret::Kept => {
                        before.as_ref().map_or((None, None), |b| (b.secret.clone(), b.previous.clone()))
                    }
                    PutSecret::Fresh => {
                        assert_eq!(service, "three", "a service that doesn't pick secrets was asked for one");
                        told = Some(format!("picked-{version}"));
                        (told.clone(), None)
                    }
                    PutSecret::Chosen { secret, previous, .. } => {
                        assert_ne!(service, "three");
                        self.tell(service, secret.expose_secret());
                        previous.iter().for_each(|p| self.tell(service, p.secret.expose_secret()));
                        let keeps = |p: &Previous| (p.secret.expose_secret().to_owned(), p.until);
                        let previous = previous.as_ref().map(keeps).filter(|_| caps(service).overlaps);
                        (Some(secret.expose_secret().to_owned()), previous)
                    }
                };
                let picked = || format!("client-{version}");
                let id = found.map_or_else(
                    || if service == "three" { picked() } else { put.at.id.to_string() },
                    |(_, id)| id,
                );
                let owner = Some(put.owner.clone());
                let tag = if service == "three" {
                    before.map_or_else(|| put.at.id.to_string(), |b| b.tag)
                } else {
                    String::new()
                };
                let held = Held { metadata: put.metadata.clone(), secret, previous, owner, tag, version };
                self.clients.insert((service, id.clone()), held);
                self.reply = Some(Registered {
                    id: ClientId::parse(&id).expect("an ID"),
                    secret: told.map(Into::into),
                    secret_expires_at: self.secret_life.map(|life| self.now + life),
                    handle: (service == "three").then(|| id.into()),
                });
            }
            Effect::KeepClient(identity, keep) => {
                let kept = match (&self.reply, keep.from_reply) {
                    (Some(reply), true) => keep.with(reply),
                    (None, true) => panic!("nothing was answered"),
                    (_, false) => keep.known.clone(),
                };
                let link = LinkRef { namespace: NAMESPACE.into(), name: LINK.into(), uid: self.uid.clone() };
                let record = self.kept.get_or_insert_with(|| KeptClients { link, at: BTreeMap::new() });
                record.at.insert(identity.clone(), kept);
            }
            Effect::ForgetClient(identity) => {
                if let Some(record) = &mut self.kept {
                    record.at.remove(identity);
                }
            }
            Effect::Announce(_) | Effect::RehearseSecret(_) => {}
            Effect::Prove(_, _, _, AuthMethod::None) => {}
            Effect::Prove(at, id, secret, _) => {
                let service = service(self, at)?;
                self.tell(service, secret.expose_secret());
                if self.authenticates(service, id.as_str(), secret.expose_secret()) != Proof::Authenticated {
                    return Err(Problem::wait("CredentialsRefused", "refused"));
                }
            }
            Effect::WriteSecret(write) => {
                let uid = format!("secret-{}", self.next());
                let kept = match &write.over {
                    None => {
                        assert!(!self.secrets.contains_key(&write.name), "created over one that is there");
                        self.secrets.entry(write.name.clone()).or_insert(Kept {
                            uid,
                            owner: None,
                            labels: BTreeMap::new(),
                            annotations: BTreeMap::new(),
                            data: BTreeMap::new(),
                            own: BTreeSet::new(),
                        })
                    }
                    Some(over) => {
                        let kept = self.secrets.get_mut(&write.name).expect("it is there");
                        assert_eq!(kept.uid, over.uid);
                        assert_eq!(kept.owner.as_deref(), Some(self.uid.as_str()), "not ours");
                        for key in &over.drop_keys {
                            assert!(kept.own.contains(key), "a foreign key was dropped");
                            kept.data.remove(key);
                        }
                        kept
                    }
                };
                kept.owner = Some(self.uid.clone());
                kept.labels.extend(write.labels.clone());
                kept.annotations.extend(write.annotations.clone());
                kept.own = write.data.iter().map(|(k, _)| k.clone()).collect();
                kept.data.extend(write.data.iter().map(|(k, v)| (k.clone(), v.to_owned())));
            }
            Effect::Unregister(at, id, version) => {
                let service = service(self, at)?;
                if let Some(key) = self.find(service, id)
                    && let Some(held) = self.clients.get(&key)
                {
                    let owner = held.owner.as_ref().expect("only what has an owner is unregistered");
                    // Where nobody can say whose it is, the name does.
                    let ours = owner.uid == self.uid || service == "three";
                    assert!(ours, "somebody else's client was unregistered");
                    if version.as_deref() == Some(held.version.to_string().as_str()) {
                        self.clients.remove(&key);
                    }
                }
            }
            Effect::DeleteSecret(id) => {
                let kept = self.secrets.remove(&id.name).expect("it is there");
                assert_eq!(
                    (kept.uid.as_str(), kept.owner.as_deref()),
                    (id.uid.as_str(), Some(self.uid.as_str()))
                );
            }
            Effect::ReleaseSecret(id) => {
                let kept = self.secrets.get_mut(&id.name).expect("it is there");
                assert_eq!(kept.owner.take().as_deref(), Some(self.uid.as_str()));
            }
            Effect::Finish => {
                self.finalizer = false;
                self.finished = true;
                // The garbage collector's part.
                let uid = self.uid.clone();
                self.secrets.retain(|_, k| k.owner.as_ref() != Some(&uid));
            }
            other => panic!("{other:?} isn't an effect of an incoming link"),
        }
        Ok(())
    }
}
