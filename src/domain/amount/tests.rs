use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn balances_add_compare_and_read_back_as_numbers_do(one: i64, other: i64) {
        let balance = |number: i64| number.to_string().parse::<Balance>().unwrap();
        let sum = i128::from(one) + i128::from(other);
        let added = balance(one).plus(balance(other)).unwrap();
        prop_assert_eq!(added.to_string(), sum.to_string());
        prop_assert_eq!(balance(one).negated().to_string(), (-i128::from(one)).to_string());
        prop_assert_eq!(balance(one).cmp(&balance(other)), one.cmp(&other));
        let nothing = balance(one).plus(balance(one).negated()).unwrap();
        prop_assert!(nothing.is_zero() && nothing == Balance::ZERO);
    }
}

const U256_MAX: &str =
    "115792089237316195423570985008687907853269984665640564039457584007913129639935";

#[test]
fn only_the_canonical_form_is_a_quantity() {
    for text in ["0", "1", "18446744073709551616", U256_MAX] {
        assert_eq!(text.parse::<Quantity>().unwrap().to_string(), text);
    }
    for text in ["", "00", "01", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "1_000", "١"] {
        assert_eq!(text.parse::<Quantity>(), Err(AmountError::NotCanonical), "{text:?}");
    }
    let one_more = format!("{}6", &U256_MAX[..77]);
    assert_eq!(one_more.parse::<Quantity>(), Err(AmountError::TooLarge));
    assert_eq!("9".repeat(79).parse::<Quantity>(), Err(AmountError::TooLarge));
}

#[test]
fn totals_hold_more_than_any_quantity() {
    let mut total = Total::ZERO;
    for _ in 0..10 {
        total = total.plus(Quantity::MAX).unwrap();
    }
    let text = total.to_string();
    assert_eq!(text, format!("{U256_MAX}0").parse::<Total>().unwrap().to_string());
    assert!(Balance::of(total, Total::ZERO).covers(Quantity::MAX));
}

#[test]
fn a_negative_balance_covers_nothing() {
    let debits = Total::ZERO.plus(Quantity::from(5)).unwrap();
    let balance = Balance::of(Total::ZERO, debits);
    assert!(balance.is_negative());
    assert_eq!(balance.to_string(), "-5");
    assert!(!balance.covers(Quantity::ZERO));
    assert_eq!(balance.covered_part(Quantity::from(3)), Quantity::ZERO);
}

#[test]
fn room_is_measured_without_a_wrap() {
    let total = |quantity| Total::ZERO.plus(quantity).unwrap();
    let (most, one) = (Quantity::MAX, Quantity::from(1));
    let full = Balance::of(total(most), Total::ZERO);
    assert!(full.has_room_for(Quantity::ZERO, most) && !full.has_room_for(one, most));
    assert!(!full.has_room_for(most, most));
    let owed = Balance::of(Total::ZERO, total(most));
    assert!(owed.has_room_for(most, Quantity::ZERO) && owed.has_room_for(most, most));
    let no_end = Balance { negative: true, magnitude: U320::MAX };
    assert!(no_end.has_room_for(most, most));
    assert!(!Balance { negative: false, ..no_end }.has_room_for(one, most));
}

#[test]
fn a_balance_has_one_spelling() {
    for text in ["", "-", "-0", "+1", "01", "-01", "--1", "1.0"] {
        assert_eq!(text.parse::<Balance>(), Err(AmountError::NotCanonical), "{text:?}");
    }
}

#[test]
fn a_delta_is_signed_and_never_zero() {
    assert_eq!("-12".parse::<Delta>().unwrap().to_string(), "-12");
    assert_eq!("12".parse::<Delta>().unwrap().magnitude(), Quantity::from(12));
    assert_eq!("-0".parse::<Delta>(), Err(AmountError::Zero));
    assert_eq!("--1".parse::<Delta>(), Err(AmountError::NotCanonical));
    assert_eq!("+1".parse::<Delta>(), Err(AmountError::NotCanonical));
}

proptest! {
    #[test]
    fn any_256_bit_number_survives_its_text(limbs: [u64; 4]) {
        let quantity = Quantity(U256::from_limbs(limbs));
        prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
    }

    #[test]
    fn room_agrees_with_small_integers(credits: u32, debits: u32, more: u32, most: u32) {
        let total = |units: u32| Total::ZERO.plus(Quantity::from(u64::from(units))).unwrap();
        let quantity = |units: u32| Quantity::from(u64::from(units));
        let has_room = Balance::of(total(credits), total(debits))
            .has_room_for(quantity(more), quantity(most));
        let sum = i64::from(credits) - i64::from(debits) + i64::from(more);
        prop_assert_eq!(has_room, sum <= i64::from(most));
    }

    #[test]
    fn balance_agrees_with_small_integers(credits: u32, debits: u32, wanted: u32) {
        let balance = Balance::of(
            Total::ZERO.plus(Quantity::from(u64::from(credits))).unwrap(),
            Total::ZERO.plus(Quantity::from(u64::from(debits))).unwrap(),
        );
        let expected = i64::from(credits) - i64::from(debits);
        prop_assert_eq!(balance.to_string(), expected.to_string());
        prop_assert_eq!(
            balance.covers(Quantity::from(u64::from(wanted))),
            expected >= i64::from(wanted)
        );
        prop_assert_eq!(balance.to_string().parse::<Balance>(), Ok(balance));
        let part = balance.covered_part(Quantity::from(u64::from(wanted)));
        let expected_part = u64::try_from(expected.clamp(0, i64::from(wanted))).unwrap();
        prop_assert_eq!(part, Quantity::from(expected_part));
    }
}
