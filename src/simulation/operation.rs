//! What may happen in a run, and how a seed chooses it.
//!
//! An operation names records, attempts and answers by a number that is taken modulo how many there
//! are, so that a list of operations means something whatever is dropped from it.

use crate::domain::{decision::Outcome, job::JobType, policy::OperatorWord};

/// The numbers of a seed (`SplitMix64`): the same on every machine and with every version of every
/// crate, so that a seed that failed once can be replayed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from nothing to one less than `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    /// True so many times in a hundred.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is committed.
    Commits,
    /// The process ends before the commit.
    CrashBefore,
    /// The process ends after the commit, before anybody is told.
    CrashAfter,
}

/// What OES does with an update, and what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutFate {
    Works,
    AppliedThenLost,
    LostBefore,
    /// It is lost to us, and arrives at OES later.
    Lingers,
    AppliedThen500,
    Only500,
    RateLimited {
        retry_after_s: Option<u8>,
    },
    Refused {
        status: u16,
    },
    /// 200 with other values than were sent.
    WrongEcho {
        applied: bool,
    },
    /// 200 that cannot be read.
    Garbled {
        applied: bool,
    },
    AsksApproval,
    /// `policyResult: rejected`; the record may end the other way at once.
    PolicyRejects {
        ends: bool,
    },
}

/// What a read brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFate {
    Works,
    Fails,
    ShowsNothing,
    Unauthorized,
    RateLimited {
        retry_after_s: Option<u8>,
    },
    /// An answer, in which no record can be read.
    Garbled,
}

/// In what a message is not what OES's record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Connection,
    Type,
    Amount,
}

/// How OES knows the record that a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtOes {
    Known,
    /// It is not shown.
    Missing,
    /// It is shown without its amount.
    WithoutAmount,
    /// It is not what the message says.
    Other(Difference),
}

/// Limits beyond the quantity of one record; the total is the currency's only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caps {
    pub(super) total: Option<u16>,
    pub(super) exposure: Option<u16>,
    pub(super) allocations: Option<u16>,
    pub(super) deallocations: Option<u16>,
    pub(super) approval_above: Option<u16>,
}

/// A fact of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Connection { which: u8, active: bool },
    Currency { which: u8, enabled: bool, least: u8, most: u8, caps: Caps },
    Limits { connection: u8, currency: u8, caps: Caps },
    Adjust { connection: u8, currency: u8, delta: i8 },
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A client makes a record at OES, and the edge publishes its job.
    NewRecord {
        job_type: JobType,
        connection: u8,
        currency: u8,
        quantity: u8,
        at_oes: AtOes,
        wrong_identity: bool,
    },
    PublishAgain {
        record: u8,
    },
    PublishOtherContent {
        record: u8,
    },
    /// Somebody publishes a job that is not what OES's record says.
    PublishForged {
        record: u8,
        difference: Difference,
    },
    /// The edge publishes the job of a record as OES has it.
    PublishGenuine {
        record: u8,
    },
    PublishGarbage {
        which: u8,
    },
    /// The worker takes messages; `acked` tells whether their acknowledgements arrive.
    Deliver {
        count: u8,
        fate: Fate,
        acked: bool,
    },
    Decide {
        fate: Fate,
    },
    Prepare {
        count: u8,
        fate: Fate,
    },
    Put {
        which: u8,
        fate: PutFate,
    },
    /// An update that lingered arrives at OES.
    Arrive {
        which: u8,
    },
    Finish {
        which: u8,
        fate: Fate,
    },
    Read {
        fate: ReadFate,
    },
    SettleReads {
        fate: Fate,
    },
    /// Records of undecided jobs are read.
    Verify {
        fate: ReadFate,
    },
    SettleVerified {
        fate: Fate,
    },
    Announce {
        confirmed: bool,
        fate: Fate,
    },
    Feed {
        fact: Fact,
        fate: Fate,
    },
    FeedAgain {
        which: u8,
        fate: Fate,
    },
    SendOn {
        record: u8,
        fate: Fate,
    },
    /// An operator says whether a job above the threshold may be cleared.
    SayWord {
        record: u8,
        word: OperatorWord,
        fate: Fate,
    },
    /// OES ends a record by itself.
    OesEnds {
        record: u8,
        outcome: Outcome,
        rejected: bool,
    },
    OesAsksApproval {
        record: u8,
    },
    ApprovalEnds {
        record: u8,
        approved: bool,
        ends: bool,
    },
    /// A record that OES did not show, or not in full, appears.
    OesShows {
        record: u8,
    },
    Wait {
        seconds: u16,
    },
    JumpForward {
        hours: u8,
    },
    JumpBack {
        seconds: u16,
    },
    Crash,
}

/// What OES's reference leaves open, one way or the other for a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stance {
    /// An update that repeats what the record already is, is accepted; else it is a 409.
    pub(super) repeat_accepted: bool,
    /// A request that ends in 500 has used its nonce up.
    pub(super) nonce_consumed_by_500: bool,
    /// An update of a record that ended otherwise is a 409; else a 422.
    pub(super) contrary_is_409: bool,
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) stance: Stance,
    /// Whether a job is decided only after its record was read.
    pub(super) verifies: bool,
    pub(super) operations: Vec<Operation>,
}

const OPERATIONS_MIN: u64 = 20;
const OPERATIONS_SPREAD: u64 = 40;

impl Script {
    /// The run of a seed.
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let stance = Stance {
            repeat_accepted: dice.chance(50),
            nonce_consumed_by_500: dice.chance(50),
            contrary_is_409: dice.chance(50),
        };
        let verifies = dice.chance(60);
        // Some runs are calm, so that jobs go far; others are one fault after the other.
        let faults = dice.pick(&[5, 20, 45]);
        let count = OPERATIONS_MIN + dice.below(OPERATIONS_SPREAD);
        let draw_one = |_| {
            // Where records are read first, a job needs more to happen.
            if verifies && dice.chance(30) {
                draw_verifying(&mut dice, faults)
            } else {
                draw(&mut dice, faults, verifies)
            }
        };
        let operations = (0..count).map(draw_one).collect();
        Self { stance, verifies, operations }
    }
}

fn draw_verifying(dice: &mut Dice, faults: u64) -> Operation {
    let (record, fate) = (dice.byte(), draw_fate(dice, faults));
    match dice.below(16) {
        0..6 => Operation::Verify { fate: draw_read(dice, faults) },
        6..12 => Operation::SettleVerified { fate },
        12 if dice.chance(faults * 2) => {
            Operation::PublishForged { record, difference: draw_difference(dice) }
        }
        13 => Operation::PublishGenuine { record },
        // What is to be seen before the first send has to happen before it.
        14 if dice.chance(faults * 2) => {
            let (outcome, rejected) = (dice.pick(&Outcome::ALL), dice.chance(20));
            Operation::OesEnds { record, outcome, rejected }
        }
        15 if dice.chance(faults * 2) => Operation::OesAsksApproval { record },
        _ => Operation::Deliver { count: 1 + record % 4, fate, acked: true },
    }
}

fn draw_difference(dice: &mut Dice) -> Difference {
    dice.pick(&[Difference::Connection, Difference::Type, Difference::Amount, Difference::Amount])
}

fn draw(dice: &mut Dice, faults: u64, verifies: bool) -> Operation {
    let fate = draw_fate(dice, faults);
    let (which, record) = (dice.byte(), dice.byte());
    match dice.below(100) {
        0..12 => draw_record(dice, faults, verifies),
        12..15 => Operation::PublishAgain { record },
        15..17 if dice.chance(faults) => Operation::PublishOtherContent { record },
        17..19 if dice.chance(faults) => Operation::PublishGarbage { which: which % 4 },
        15..32 => {
            Operation::Deliver { count: 1 + which % 4, fate, acked: !dice.chance(faults / 2) }
        }
        32..37 => Operation::Decide { fate },
        37..46 => Operation::Prepare { count: 1 + which % 4, fate },
        46..59 => Operation::Put { which, fate: draw_put(dice, faults) },
        59..61 => Operation::Arrive { which },
        61..72 => Operation::Finish { which, fate },
        72..79 => Operation::Read { fate: draw_read(dice, faults) },
        79..85 => Operation::SettleReads { fate },
        85..88 => Operation::Announce { confirmed: !dice.chance(faults), fate },
        88..91 => Operation::Feed { fact: draw_fact(dice), fate },
        91 => Operation::FeedAgain { which, fate },
        92..97 => Operation::Wait { seconds: dice.pick(&[1, 2, 5, 20, 70, 400]) },
        _ => draw_trouble(dice, faults, record, fate),
    }
}

fn draw_trouble(dice: &mut Dice, faults: u64, record: u8, fate: Fate) -> Operation {
    let rejected = dice.chance(50);
    match dice.below(13) {
        0 | 1 => Operation::SendOn { record, fate },
        10..13 => {
            let word =
                dice.pick(&[OperatorWord::Approved, OperatorWord::Approved, OperatorWord::Refused]);
            Operation::SayWord { record, word, fate }
        }
        2 if dice.chance(faults * 2) => {
            let outcome = dice.pick(&Outcome::ALL);
            Operation::OesEnds { record, outcome, rejected }
        }
        3 if dice.chance(faults * 2) => Operation::OesAsksApproval { record },
        4 | 5 => Operation::ApprovalEnds { record, approved: !rejected, ends: dice.chance(50) },
        6 => Operation::OesShows { record },
        7 if dice.chance(faults) => Operation::JumpForward { hours: 1 + record % 30 },
        8 if dice.chance(faults) => Operation::JumpBack { seconds: dice.pick(&[1, 30, 4_000]) },
        _ if dice.chance(faults * 2) => Operation::Crash,
        _ => Operation::Wait { seconds: 3 },
    }
}

fn draw_fate(dice: &mut Dice, faults: u64) -> Fate {
    if !dice.chance(faults / 3) {
        Fate::Commits
    } else if dice.chance(50) {
        Fate::CrashBefore
    } else {
        Fate::CrashAfter
    }
}

fn draw_record(dice: &mut Dice, faults: u64, verifies: bool) -> Operation {
    let at_oes = if !dice.chance(faults / 3) {
        AtOes::Known
    } else if verifies {
        let other = AtOes::Other(draw_difference(dice));
        dice.pick(&[AtOes::Missing, AtOes::WithoutAmount, other, other])
    } else {
        // Without a read before, nobody compares amounts.
        let other = dice.pick(&[Difference::Connection, Difference::Type]);
        dice.pick(&[AtOes::Missing, AtOes::Other(other)])
    };
    Operation::NewRecord {
        job_type: dice.pick(&JobType::ALL),
        connection: dice.pick(&[0, 0, 0, 1, 1, 2]),
        currency: dice.pick(&[0, 0, 0, 1]),
        quantity: dice.pick(&[1, 5, 10, 20, 40, 60, 90]),
        at_oes,
        wrong_identity: dice.chance(faults / 5),
    }
}

fn draw_put(dice: &mut Dice, faults: u64) -> PutFate {
    if !dice.chance(faults * 2) {
        return PutFate::Works;
    }
    let (applied, wait) = (dice.chance(50), dice.chance(50).then_some(30));
    match dice.below(15) {
        0 | 1 => PutFate::AppliedThenLost,
        2 => PutFate::LostBefore,
        3 => PutFate::Lingers,
        4 => PutFate::AppliedThen500,
        5 => PutFate::Only500,
        6 | 7 => PutFate::RateLimited { retry_after_s: wait },
        8..11 => PutFate::Refused { status: dice.pick(&[400, 401, 403, 403, 404, 409, 422, 302]) },
        11 => PutFate::WrongEcho { applied },
        12 => PutFate::Garbled { applied },
        13 => PutFate::AsksApproval,
        _ => PutFate::PolicyRejects { ends: applied },
    }
}

fn draw_read(dice: &mut Dice, faults: u64) -> ReadFate {
    if !dice.chance(faults) {
        return ReadFate::Works;
    }
    let retry_after_s = dice.chance(50).then_some(20);
    dice.pick(&[
        ReadFate::Fails,
        ReadFate::ShowsNothing,
        ReadFate::Unauthorized,
        ReadFate::RateLimited { retry_after_s },
        ReadFate::Garbled,
    ])
}

fn draw_fact(dice: &mut Dice) -> Fact {
    match dice.below(9) {
        0 | 1 => Fact::Connection { which: dice.byte() % 3, active: dice.chance(70) },
        2 => Fact::Currency {
            which: dice.byte() % 2,
            enabled: dice.chance(70),
            least: 1 + dice.byte() % 10,
            most: 30 + dice.byte() % 100,
            caps: draw_currency_caps(dice),
        },
        8 => Fact::Limits {
            connection: dice.byte() % 3,
            currency: dice.byte() % 2,
            caps: draw_caps(dice),
        },
        _ => Fact::Adjust {
            connection: dice.byte() % 3,
            currency: dice.byte() % 2,
            delta: dice.pick(&[-60, -20, -5, 5, 20, 60]),
        },
    }
}

/// A connection's own limits. A cap of nothing stops what it is about.
fn draw_caps(dice: &mut Dice) -> Caps {
    let mut cap = |from: &[u16]| {
        let cap = dice.pick(from);
        dice.chance(50).then_some(cap)
    };
    Caps {
        total: None,
        exposure: cap(&[0, 40, 80, 200]),
        allocations: cap(&[0, 30, 60, 100]),
        deallocations: cap(&[0, 30, 60, 100]),
        approval_above: cap(&[0, 10, 25]),
    }
}

/// A currency's limits, none of which crosses another.
fn draw_currency_caps(dice: &mut Dice) -> Caps {
    let total = dice.chance(50).then_some(dice.pick(&[0, 200, 300]));
    Caps { total, ..draw_caps(dice) }
}
