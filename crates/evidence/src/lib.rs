//! Downstream classifiers, balancing baselines and metrics per group with intervals.
