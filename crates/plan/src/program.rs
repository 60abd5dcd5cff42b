//! Linear programs over whole numbers, and what the solver says about them.
//!
//! The solver works in floating point. Nothing that it returns is believed: whole solutions are checked against the
//! targets in whole numbers by the caller, and its bounds are rounded with a margin.

use std::time::{Duration, Instant};

use microlp::{ComparisonOp, Error, OptimizationDirection, Problem, SolveOptions, TerminationReason, Variable};

/// A variable of whole numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Var {
    /// The least value.
    pub lower: f64,
    /// The largest value; may be infinite.
    pub upper: f64,
}

/// `lower <= sum of terms <= upper`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Variables and their coefficients.
    pub terms: Vec<(usize, f64)>,
    /// The least value of the sum.
    pub lower: f64,
    /// The largest value of the sum.
    pub upper: f64,
}

/// Variables and rows; what is minimised is said for each solve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// The variables.
    pub vars: Vec<Var>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What the relaxation to real numbers says.
pub(crate) enum Relaxed {
    /// The values and the least sum.
    Solved(Vec<f64>, f64),
    /// Nothing meets the rows.
    Infeasible,
    /// The time was up, or the arithmetic failed.
    Unknown,
}

/// What branch and bound says.
pub(crate) enum Branched {
    /// The best values found, the bound, and whether they are proven to be the best.
    Solved { values: Vec<i64>, bound: Option<f64>, proven: bool },
    /// No whole numbers meet the rows.
    Infeasible,
    /// The limits were reached, or the arithmetic failed, before anything was found.
    Unknown,
}

/// Whole numbers beyond this are left to rounding: the solver's integers end at 2^31.
const MOST_WHOLE: f64 = (1u64 << 30) as f64;

impl Program {
    /// A new variable from 0.
    pub fn add(&mut self, upper: f64) -> usize {
        self.vars.push(Var { lower: 0.0, upper });
        self.vars.len() - 1
    }

    /// A new row.
    pub fn require(&mut self, terms: Vec<(usize, f64)>, lower: f64, upper: f64) {
        self.rows.push(Row { terms, lower, upper });
    }

    /// Solves over real numbers.
    pub fn relax(&self, cost: &[usize], deadline: Instant) -> Relaxed {
        if left(deadline).is_zero() {
            return Relaxed::Unknown;
        }
        let add = |problem: &mut Problem, cost, var: Var| Some(problem.add_var(cost, (var.lower, var.upper)));
        let Some((problem, vars)) = self.problem(cost, add) else { return Relaxed::Unknown };
        let mut options = SolveOptions::default();
        options.time_limit = Some(left(deadline));
        match problem.solve_with(options) {
            Ok(outcome) if outcome.is_optimal() => match outcome.solution() {
                Some(solution) => {
                    Relaxed::Solved(vars.iter().map(|&v| solution.var_value(v)).collect(), solution.objective())
                }
                None => Relaxed::Unknown,
            },
            Err(Error::Infeasible) => Relaxed::Infeasible,
            _ => Relaxed::Unknown,
        }
    }

    /// Solves over whole numbers, starting from a solution where one is known.
    pub fn branch(&self, cost: &[usize], start: Option<&[i64]>, nodes: u64, deadline: Instant) -> Branched {
        if left(deadline).is_zero() {
            return Branched::Unknown;
        }
        let add = |problem: &mut Problem, cost, var: Var| {
            (var.lower <= MOST_WHOLE)
                .then(|| problem.add_integer_var(cost, (var.lower as i32, var.upper.min(MOST_WHOLE) as i32)))
        };
        let Some((problem, vars)) = self.problem(cost, add) else { return Branched::Unknown };
        let mut options = SolveOptions::default();
        options.time_limit = Some(left(deadline));
        options.node_limit = Some(nodes);
        options.warm_start = start.map(|start| vars.iter().copied().zip(start.iter().map(|&n| n as f64)).collect());
        match problem.solve_with(options) {
            Ok(outcome) => match outcome.solution() {
                Some(solution) => Branched::Solved {
                    values: vars.iter().map(|&v| solution.var_value(v).round() as i64).collect(),
                    bound: outcome.stats().best_bound,
                    proven: outcome.termination_reason() == TerminationReason::ProvenOptimal,
                },
                None => Branched::Unknown,
            },
            Err(Error::Infeasible) => Branched::Infeasible,
            Err(_) => Branched::Unknown,
        }
    }

    fn problem(
        &self,
        cost: &[usize],
        add: impl Fn(&mut Problem, f64, Var) -> Option<Variable>,
    ) -> Option<(Problem, Vec<Variable>)> {
        let mut costs = vec![0.0; self.vars.len()];
        cost.iter().for_each(|&var| costs[var] = 1.0);
        let mut problem = Problem::new(OptimizationDirection::Minimize);
        let vars: Vec<Variable> =
            self.vars.iter().zip(costs).map(|(&var, cost)| add(&mut problem, cost, var)).collect::<Option<_>>()?;
        for Row { terms, lower, upper } in &self.rows {
            let terms: Vec<(Variable, f64)> = terms.iter().map(|&(var, factor)| (vars[var], factor)).collect();
            if lower == upper {
                problem.add_constraint(&terms, ComparisonOp::Eq, *lower);
                continue;
            }
            if lower.is_finite() {
                problem.add_constraint(&terms, ComparisonOp::Ge, *lower);
            }
            if upper.is_finite() {
                problem.add_constraint(&terms, ComparisonOp::Le, *upper);
            }
        }
        Some((problem, vars))
    }

    /// Whether whole values meet every row, up to the rounding of their sums.
    pub fn holds(&self, values: &[i64]) -> bool {
        let inside = |x: f64, lower: f64, upper: f64| x >= lower - margin(lower) && x <= upper + margin(upper);
        self.vars.iter().zip(values).all(|(var, &n)| inside(n as f64, var.lower, var.upper))
            && self.rows.iter().all(|row| {
                let sum: f64 = row.terms.iter().map(|&(var, factor)| factor * values[var] as f64).sum();
                inside(sum, row.lower, row.upper)
            })
    }
}

fn margin(bound: f64) -> f64 {
    if bound.is_finite() { 1e-6 * (1.0 + bound.abs() * 1e-6) } else { 0.0 }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
