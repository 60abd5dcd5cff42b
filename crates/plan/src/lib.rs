//! Targets, deficits and requests: how many images are missing from which group.
