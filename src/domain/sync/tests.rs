use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn id(number: u128) -> ConnectionId {
    Uuid::from_u128(number).into()
}

fn shown(number: u128, active: bool) -> ShownConnection {
    ShownConnection {
        id: id(number),
        client_id: Uuid::from_u128(99).into(),
        partner_id: Uuid::from_u128(98),
        partners_client_id: Some("client".parse().unwrap()),
        partners_connection_id: Some(format!("conn-{number}").parse().unwrap()),
        active,
        initialized: true,
    }
}

fn known(number: u128, active: bool, exchange_word: Option<bool>) -> BookConnection {
    let shown = shown(number, active);
    let connection = Connection {
        connection_id: shown.id,
        client_id: shown.client_id,
        partners_client_id: shown.partners_client_id.unwrap(),
        partners_connection_id: shown.partners_connection_id.unwrap(),
        active,
    };
    BookConnection { connection, exchange_word }
}

#[test]
fn somebody_should_know_of_what_can_refuse_or_clear_wrongly_and_of_nothing_else() {
    use SyncKind::{
        Activated, ChangedConnection, Deactivated, GoneConnection, NewConnection, NewCurrency,
        NotReady, Reactivated, SuspendedHere, Unreadable, UnsupportedCurrency,
    };
    let told =
        [NewConnection, ChangedConnection, Deactivated, GoneConnection, Reactivated, Unreadable];
    assert!(told.into_iter().all(SyncKind::needs_attention));
    let quiet = [Activated, SuspendedHere, NotReady, NewCurrency, UnsupportedCurrency];
    assert!(!quiet.into_iter().any(SyncKind::needs_attention));
}

struct Case {
    shown: Vec<Listed<ShownConnection>>,
    gone: BTreeSet<ConnectionId>,
    book: Vec<BookConnection>,
    supported: BTreeSet<CurrencyCode>,
    currencies: Vec<Currency>,
    activate: BTreeSet<ConnectionId>,
}

impl Case {
    fn new(shown: Vec<ShownConnection>, book: Vec<BookConnection>) -> Self {
        let shown = shown
            .into_iter()
            .map(|item| Listed { id: item.id.as_uuid(), item: Ok(item) })
            .collect();
        Self {
            shown,
            gone: BTreeSet::new(),
            book,
            supported: BTreeSet::new(),
            currencies: Vec::new(),
            activate: BTreeSet::new(),
        }
    }

    fn lines(&self) -> Vec<SyncLine> {
        differences(&SyncView {
            shown: &self.shown,
            gone: &self.gone,
            book: &self.book,
            supported: Some(&self.supported),
            currencies: &self.currencies,
            activate: &self.activate,
        })
    }

    fn kinds(&self) -> Vec<SyncKind> {
        self.lines().iter().map(|line| line.kind).collect()
    }

    /// The book with every fact of the lines applied; `word` is whose word an activation is.
    fn applied(&mut self) {
        for line in self.lines() {
            match line.fact {
                Some(BookFact::ConnectionUpserted(connection)) => {
                    let same = |known: &&mut BookConnection| {
                        known.connection.connection_id == connection.connection_id
                    };
                    match self.book.iter_mut().find(same) {
                        Some(known) => {
                            if line.kind == SyncKind::Activated {
                                known.exchange_word = Some(true);
                            }
                            known.connection = connection;
                        }
                        None => self.book.push(BookConnection { connection, exchange_word: None }),
                    }
                }
                Some(BookFact::CurrencyConfigured(currency)) => self.currencies.push(currency),
                Some(
                    BookFact::BalanceAdjusted(_)
                    | BookFact::ConnectionLimited(_)
                    | BookFact::ConnectionSuspended(_)
                    | BookFact::BalanceSnapshot(_)
                    | BookFact::Heartbeat(_),
                ) => {
                    panic!("a sync moves no balance")
                }
                None => {}
            }
        }
    }
}

#[test]
fn each_word_about_a_connection_and_what_it_does() {
    use SyncKind::{Deactivated, NewConnection, Reactivated, SuspendedHere};
    // (active at OES, active here, the exchange's word, what follows)
    for (oes, here, word, expected) in [
        (true, None, None, Some(NewConnection)),
        (false, None, None, Some(NewConnection)),
        (true, Some(true), Some(true), None),
        (true, Some(true), None, None),
        (false, Some(true), Some(true), Some(Deactivated)),
        (false, Some(true), None, Some(Deactivated)),
        (false, Some(false), Some(true), None),
        (false, Some(false), Some(false), None),
        (true, Some(false), Some(true), Some(Reactivated)),
        (true, Some(false), None, Some(Reactivated)),
        (true, Some(false), Some(false), Some(SuspendedHere)),
        // A sync had read the book before the exchange suspended it.
        (true, Some(true), Some(false), Some(Deactivated)),
    ] {
        let book = here.map(|active| known(1, active, word)).into_iter().collect();
        let case = Case::new(vec![shown(1, oes)], book);
        assert_eq!(case.kinds().first().copied(), expected, "{oes} {here:?} {word:?}");
    }
}

#[test]
fn a_suspended_connection_takes_new_ids_and_stays_suspended() {
    let mut case = Case::new(vec![shown(1, true)], vec![known(1, false, Some(false))]);
    case.book[0].connection.partners_client_id = "old".parse().unwrap();
    let lines = case.lines();
    assert_eq!(lines[0].kind, SyncKind::ChangedConnection);
    let Some(BookFact::ConnectionUpserted(connection)) = &lines[0].fact else { panic!() };
    assert!(!connection.active);
    assert_eq!(connection.partners_client_id.as_str(), "client");
}

#[test]
fn an_operator_gives_back_only_what_is_named_and_active_at_oes() {
    let mut case = Case::new(
        vec![shown(1, true), shown(2, true), shown(3, false)],
        (1..=3).map(|number| known(number, false, Some(false))).collect(),
    );
    case.activate = [id(1), id(3)].into();
    assert_eq!(case.kinds(), [SyncKind::Activated, SyncKind::SuspendedHere]);
}

#[test]
fn what_cannot_be_taken_is_shown_and_left_alone() {
    let unset = ShownConnection { initialized: false, ..shown(1, true) };
    let unnamed = ShownConnection { partners_client_id: None, ..shown(2, true) };
    let mut case = Case::new(vec![unset, unnamed], vec![known(3, true, None)]);
    case.shown.push(Listed { id: id(3).as_uuid(), item: Err("no client".to_owned()) });
    assert_eq!(case.kinds(), [SyncKind::NotReady, SyncKind::NotReady, SyncKind::Unreadable]);
    assert!(case.lines().iter().all(|line| line.fact.is_none()));
}

#[test]
fn only_what_was_asked_for_by_name_and_is_not_there_is_gone() {
    let mut case = Case::new(Vec::new(), vec![known(1, true, Some(true)), known(2, true, None)]);
    assert_eq!(case.kinds(), []);
    case.gone = [id(1)].into();
    let lines = case.lines();
    assert_eq!(lines.len(), 1);
    let Some(BookFact::ConnectionUpserted(connection)) = &lines[0].fact else { panic!() };
    assert!(connection.connection_id == id(1) && !connection.active);
}

#[test]
fn a_new_currency_is_never_enabled_and_a_configured_one_is_never_touched() {
    let mut case = Case::new(Vec::new(), Vec::new());
    case.supported = ["BTC", "ETH"].map(|name| name.parse().unwrap()).into();
    let configured = |name: &str| Currency {
        currency: name.parse().unwrap(),
        enabled: true,
        quantity_min: Quantity::from(1),
        quantity_max: Quantity::MAX,
        decimals: None,
        exposure_max_total: None,
        caps: ConnectionCaps::default(),
    };
    case.currencies = vec![configured("BTC"), configured("DOGE")];
    let lines = case.lines();
    assert_eq!(case.kinds(), [SyncKind::NewCurrency, SyncKind::UnsupportedCurrency]);
    let Some(BookFact::CurrencyConfigured(currency)) = &lines[0].fact else { panic!() };
    assert!(!currency.enabled && currency.currency.as_str() == "ETH");
    assert!(lines[1].fact.is_none() && lines[1].about == "DOGE", "BTC is on both sides");
}

proptest! {
    /// Whatever the words are: once applied, nothing is left to apply; and no connection is active that
    /// OES or the exchange does not want, unless an operator gave it back.
    #[test]
    fn what_is_applied_is_in_step(
        words in proptest::collection::vec(
            (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>(), any::<bool>()),
            0..12,
        ),
    ) {
        let mut case = Case::new(Vec::new(), Vec::new());
        for (number, (oes, here, word, given_back)) in words.iter().enumerate() {
            let number = u128::try_from(number).unwrap() + 1;
            if let Some(active) = oes {
                let item = shown(number, *active);
                case.shown.push(Listed { id: item.id.as_uuid(), item: Ok(item) });
            }
            if let Some(active) = here {
                case.book.push(known(number, *active, *word));
                if oes.is_none() {
                    case.gone.insert(id(number));
                }
            }
            if *given_back {
                case.activate.insert(id(number));
            }
        }
        let before = case.book.clone();
        for line in case.lines() {
            prop_assert_eq!(line.fact.is_some(), line.kind.is_applied());
        }
        case.applied();
        prop_assert!(case.lines().iter().all(|line| line.fact.is_none()));
        for known in &case.book {
            let connection = &known.connection;
            let shown = case.shown.iter().filter_map(|listed| listed.item.as_ref().ok());
            let at_oes = shown.clone().any(|shown| shown.id == connection.connection_id && shown.active);
            let word = before
                .iter()
                .find(|old| old.connection.connection_id == connection.connection_id)
                .and_then(|old| old.exchange_word);
            let wanted = word != Some(false) || case.activate.contains(&connection.connection_id);
            prop_assert_eq!(connection.active, at_oes && wanted);
        }
    }
}
