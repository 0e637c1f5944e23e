//! Tenants that reach for what isn't theirs: a provider, a Secret, a client, an address. The corpus is in
//! `tests/corpus/tenancy/*.yaml`, a list of cases a file. To add an attempt, add a case:
//!
//! | key | |
//! |---|---|
//! | `case` | what is tried; unique |
//! | `link` | a link for machines with these changes of its spec; or |
//! | `apply` | any object; or |
//! | `status` | a change of the status of the tenant's link `neighbour` |
//! | `metadata`, `named` | changes of the link's metadata; its name |
//! | `namespace`, `by` | where (the tenant's), and by whom: the tenant, or `admin` |
//! | `refused` | the API server refuses it, with a message that says all of these; or |
//! | `condition` | what comes of it: `type` (Ready), `status` ("False"), `reason`, and what the message `says` |
//! | `registers` | it may register a client of its own |
//! | `force` | its deletion can't end by itself |
//! | `collected` | the garbage collector may have removed it |
//!
//! `$TENANT`, `$VICTIM`, `$SYSTEM` are the namespaces, `$NAME` is the object's own name, and the others stand in [`Scene::words`].
//! The tenant has the cluster's role `edit` in its namespace. The operator has the rights for all namespaces, so that it is not
//! RBAC that keeps it from what it must not do. After all, and again after all was deleted, whatever was there before is the
//! same, byte by byte.

mod corpus;
mod forged;
mod scene;
mod spoof;
