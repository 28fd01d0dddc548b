//! Instances on this machine.
