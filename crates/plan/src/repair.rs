//! Repair: from values that nearly meet the rows of a program to whole values that do.
//!
//! A local search in the manner of the breakout method (Morris 1993): take a row that is not met, move the variable in
//! it by one that lessens the weighted sum of violations most, and where none does, weigh that row more. It proves
//! nothing, but where the bound of the relaxation can be reached at all it mostly gets there in a few hundred moves.

use crate::program::Program;

/// Work of one search for each term of the program, and at most: terms of rows looked at, so that the search is the
/// same on every machine.
const WORK_PER_TERM: u64 = 1_000;
const WORK: u64 = 16_000_000;

/// Of a longer row so many variables, from a place drawn anew for each move, are looked at.
const WINDOW: usize = 160;

/// Whole values near `start` that meet every row, or `None` where none were found. Variables that are `fixed` stay.
pub(crate) fn repair(program: &Program, start: &[i64], fixed: &[bool]) -> Option<Vec<i64>> {
    let mut search = LocalSearch::new(program, start, fixed);
    let terms: usize = program.rows.iter().map(|row| row.terms.len()).sum();
    let most = WORK.min(WORK_PER_TERM * terms as u64);
    let mut work = 0;
    while let Some(row) = search.pick_violated() {
        work += search.improve(row);
        if work > most {
            return None;
        }
    }
    Some(search.values)
}

struct LocalSearch<'a> {
    program: &'a Program,
    fixed: &'a [bool],
    /// For each variable the rows it is in, with its coefficients.
    columns: Vec<Vec<(usize, f64)>>,
    values: Vec<i64>,
    sums: Vec<f64>,
    weights: Vec<f64>,
    violated: Vec<usize>,
    /// Where each row stands in `violated`.
    place: Vec<usize>,
    state: u64,
    moves: u64,
    /// The move after which each variable may be moved again.
    rest_until: Vec<u64>,
}

const NOWHERE: usize = usize::MAX;

impl<'a> LocalSearch<'a> {
    fn new(program: &'a Program, start: &[i64], fixed: &'a [bool]) -> Self {
        let mut columns = vec![Vec::new(); program.vars.len()];
        let mut sums = Vec::with_capacity(program.rows.len());
        for (i, row) in program.rows.iter().enumerate() {
            row.terms.iter().for_each(|&(var, factor)| columns[var].push((i, factor)));
            sums.push(row.terms.iter().map(|&(var, factor)| factor * start[var] as f64).sum());
        }
        let rows = program.rows.len();
        let mut search = Self {
            program,
            fixed,
            columns,
            values: start.to_vec(),
            sums,
            weights: vec![1.0; rows],
            violated: Vec::new(),
            place: vec![NOWHERE; rows],
            state: 0x9e37_79b9_7f4a_7c15,
            moves: 0,
            rest_until: vec![0; program.vars.len()],
        };
        (0..rows).for_each(|row| search.note(row));
        search
    }

    /// How far a sum is outside its row.
    fn violation(&self, row: usize, sum: f64) -> f64 {
        let row = &self.program.rows[row];
        let outside = (row.lower - sum).max(sum - row.upper);
        if outside > 1e-7 * (1.0 + sum.abs() * 1e-6) { outside } else { 0.0 }
    }

    /// Keeps the list of violated rows right after a sum has changed.
    fn note(&mut self, row: usize) {
        let broken = self.violation(row, self.sums[row]) > 0.0;
        let place = self.place[row];
        if broken && place == NOWHERE {
            self.place[row] = self.violated.len();
            self.violated.push(row);
        } else if !broken && place != NOWHERE {
            self.violated.swap_remove(place);
            if let Some(&moved) = self.violated.get(place) {
                self.place[moved] = place;
            }
            self.place[row] = NOWHERE;
        }
    }

    /// A number below `n` from a fixed sequence (xorshift).
    fn draw(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % n.max(1) as u64) as usize
    }

    fn pick_violated(&mut self) -> Option<usize> {
        let at = self.draw(self.violated.len());
        self.violated.get(at).copied()
    }

    /// Makes the best move for a violated row, or weighs the row more; gives the work that it took.
    fn improve(&mut self, row: usize) -> u64 {
        let program = self.program;
        let terms = &program.rows[row].terms;
        let up = self.sums[row] < program.rows[row].lower;
        let from = self.draw(terms.len());
        let (mut best, mut work): (Option<(f64, usize, i64)>, u64) = (None, 1);
        for &(var, factor) in terms.iter().cycle().skip(from).take(terms.len().min(WINDOW)) {
            let step = if (factor > 0.0) == up { 1 } else { -1 };
            if self.fixed[var] || self.rest_until[var] > self.moves || !self.may_move(var, step) {
                work += 1;
                continue;
            }
            work += self.columns[var].len() as u64;
            let gain = self.gain(var, step);
            if best.is_none_or(|(most, ..)| gain > most) {
                best = Some((gain, var, step));
            }
        }
        self.moves += 1;
        match best {
            Some((gain, var, step)) if gain > 1e-9 => self.apply(var, step),
            _ => self.weights[row] += 1.0,
        }
        work
    }

    fn may_move(&self, var: usize, step: i64) -> bool {
        let value = (self.values[var] + step) as f64;
        value >= self.program.vars[var].lower && value <= self.program.vars[var].upper
    }

    /// How much the weighted violations lessen.
    fn gain(&self, var: usize, step: i64) -> f64 {
        let change = |&(row, factor): &(usize, f64)| {
            let after = self.sums[row] + factor * step as f64;
            self.weights[row] * (self.violation(row, self.sums[row]) - self.violation(row, after))
        };
        self.columns[var].iter().map(change).sum()
    }

    fn apply(&mut self, var: usize, step: i64) {
        self.values[var] += step;
        self.rest_until[var] = self.moves + 2;
        for i in 0..self.columns[var].len() {
            let (row, factor) = self.columns[var][i];
            self.sums[row] += factor * step as f64;
            self.note(row);
        }
    }
}
