//! Negotiation: any wish, any offer. Nothing is taken that was not offered, nothing that the policy needs is left out or unanswered, and
//! the answer is one that an MTA reads, with the macro lists that were wished for.

use pmx_milter::client::decode::{self, Reply};
use pmx_milter::milter::frame::{self, PAYLOAD_BYTES};
use pmx_milter::milter::negotiate::{self, Need, Step, Wish};

const STEPS: [Step; 9] = [
    Step::Connect,
    Step::Helo,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
    Step::Header,
    Step::Eoh,
    Step::Body,
    Step::Unknown,
];
/// `SMFIF_SETSYMLIST`
const SETSYMLIST: u32 = 0x100;
/// Stages of macro lists that go together.
const EOM_AND_EOH: [u32; 2] = [5, 6];

/// A wish from 9 bytes of needs and a list of macros: stage, length, names.
fn wish(needs: [u8; 9], mut lists: &[u8]) -> Option<Wish> {
    let mut wish = Wish {
        steps: needs.map(|need| match need % 3 {
            0 => Need::Skip,
            1 => Need::Read,
            _ => Need::Answer,
        }),
        ..Wish::default()
    };
    while let Some(([stage, length], rest)) = lists.split_first_chunk::<2>() {
        let (names, rest) = rest.split_at_checked(usize::from(*length))?;
        let names = std::str::from_utf8(names).ok()?;
        // The policy's check lets no NUL through.
        if names.contains('\0') {
            return None;
        }
        *wish.macros.get_mut(usize::from(*stage))? = Some(names.to_owned());
        lists = rest;
    }
    Some(wish)
}

/// The target: version, actions and steps of an offer, 4 bytes each, and the wish.
pub fn negotiation(data: &[u8]) {
    let Some((offer, rest)) = data.split_first_chunk::<12>() else {
        return;
    };
    let word =
        |at: usize| u32::from_be_bytes([offer[at], offer[at + 1], offer[at + 2], offer[at + 3]]);
    let (version, actions, steps) = (word(0), word(4), word(8));
    let Some((needs, lists)) = rest.split_first_chunk::<9>() else {
        return;
    };
    let Some(wish) = wish(*needs, lists) else {
        return;
    };
    let agreed = match negotiate::agree(&wish, version, actions, steps) {
        Ok(agreed) => agreed,
        Err(error) => {
            assert!(version < 2, "{error}");
            return;
        }
    };
    assert!((2..=6).contains(&agreed.version) && agreed.version <= version);
    // What very old MTAs mean by nothing.
    let offered = |bits: u32, nothing: u32| if bits == 0 { nothing } else { bits };
    assert_eq!(agreed.actions & !offered(actions, 0x0f), 0, "{agreed:?}");
    assert_eq!(agreed.steps & !offered(steps, 0x3f), 0, "{agreed:?}");
    for (step, need) in STEPS.into_iter().zip(wish.steps) {
        let (left_out, no_reply) = (agreed.left_out(step), agreed.no_reply(step));
        let allowed = match need {
            Need::Skip => !no_reply,
            Need::Read => !left_out,
            Need::Answer => !left_out && !no_reply,
        };
        assert!(allowed, "{step:?} {need:?}: {agreed:?}");
    }
    let mut wire = Vec::new();
    negotiate::put_answer(&mut wire, &wish, agreed);
    let Ok(Some((frame, used))) = frame::cut(&wire, PAYLOAD_BYTES) else {
        panic!("not a frame: {wire:?}");
    };
    assert_eq!(used, wire.len());
    let Some(Reply::Negotiated {
        version,
        actions,
        steps,
        macros,
    }) = decode::reply(frame)
    else {
        panic!("an MTA would not take it: {wire:?}");
    };
    assert_eq!(
        (version, actions, steps),
        (agreed.version, agreed.actions, agreed.steps)
    );
    if actions & SETSYMLIST == 0 {
        return assert!(macros.is_empty(), "lists that nobody asked for: {macros:?}");
    }
    let has = |stage: u32| macros.iter().any(|(other, _)| *other == stage);
    assert_eq!(
        has(EOM_AND_EOH[0]),
        has(EOM_AND_EOH[1]),
        "Sendmail reads one only beside the other"
    );
    for (stage, names) in (0..).zip(&wish.macros) {
        let told: Vec<&[u8]> = macros
            .iter()
            .filter(|it| it.0 == stage)
            .map(|it| &it.1[..])
            .collect();
        match names {
            Some(names) => assert_eq!(told, [names.as_bytes()], "stage {stage}"),
            None => assert!(
                told.len() <= usize::from(EOM_AND_EOH.contains(&stage)),
                "stage {stage}"
            ),
        }
    }
}
