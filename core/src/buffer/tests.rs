use super::*;
use proptest::prelude::*;

/// Checks the invariants of a rope and a pool.
fn check(rope: &Rope, pool: &Pool) {
    if let Some(queue) = &rope.0 {
        assert!(queue.start < queue.end && queue.gone <= queue.chunks.len());
        assert!(queue.chunks[..queue.gone].iter().all(|chunk| chunk.bytes().is_empty()));
        assert_eq!(queue.held, queue.recount());
        // At most a part of the first chunk has been released.
        assert!(queue.chunks.get(queue.gone + 1).is_none_or(|second| second.at > queue.start));
    }
    for (class, buffers) in pool.buffers.iter().enumerate() {
        assert!(buffers.iter().all(|buffer| buffer.is_empty() && buffer.capacity() == SIZES[class]));
    }
    for queue in &pool.queues {
        assert_eq!((queue.start, queue.end, queue.inline, queue.chunks.len(), queue.gone), (0, 0, 0, 0, 0));
    }
}

#[test]
fn an_empty_rope_owns_no_buffer() {
    assert_eq!(size_of::<Rope>(), size_of::<usize>());
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    rope.push_slice(&[1; 100], &mut pool);
    rope.push_bytes(Bytes::from_static(&[2; 2000]), &mut pool);
    rope.release(2100, &mut pool);
    assert!(rope.0.is_none());
}

#[test]
fn a_small_payload_does_not_hold_a_large_packet() {
    let packet = Bytes::from(vec![7; 60_000]);
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    rope.push_payload(&packet[..1], Some(&packet), &mut pool);
    assert!(packet.is_unique());
    rope.push_payload(&packet[..59_000], Some(&packet), &mut pool);
    assert!(!packet.is_unique());
    rope.release(59_001, &mut pool);
    assert!(packet.is_unique());
}

/// The most bytes of memory that a rope may hold for `len` bytes of content.
fn most_held(len: usize) -> usize {
    SPARSE * len + LOOSE
}

#[test]
fn the_last_byte_of_a_large_queue_holds_no_large_buffer() {
    for size in [2000, 60_000, 300_000] {
        for shared in [false, true] {
            let (mut rope, mut pool) = (Rope::default(), Pool::default());
            let data: Vec<u8> =
                (0..size).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
            let packet = Bytes::from(data.clone());
            match shared {
                true => rope.push_bytes(packet.clone(), &mut pool),
                false => rope.push_slice(&data, &mut pool),
            }
            assert!(rope.held() >= size);
            for left in (1..size).rev() {
                rope.release(1, &mut pool);
                assert!(rope.held() <= most_held(left), "{} for {left} bytes", rope.held());
            }
            let mut last = [0];
            assert_eq!((rope.peek(0, &mut last), last[0]), (1, data[size - 1]));
            assert!(!shared || size <= LOOSE || packet.is_unique(), "the packet is free");
        }
    }
}

#[test]
fn a_copy_of_a_queue_is_counted_as_the_original_is() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    rope.push_slice(&[1; 5000], &mut pool);
    rope.push_bytes(Bytes::from_static(&[2; 2000]), &mut pool);
    let copy = rope.clone();
    assert_eq!((copy.held(), copy.recount()), (rope.held(), rope.recount()));
    assert_eq!(copy.held(), copy.recount());
}

#[test]
fn pieces_are_taken_from_the_front_and_slices_without_a_copy() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    let packet = Bytes::from((0..2000).map(|i| i as u8).collect::<Vec<_>>());
    rope.push_slice(b"inline", &mut pool);
    rope.push_bytes(packet.clone(), &mut pool);
    rope.push_slice(&[7; 5000], &mut pool);
    let mut taken = Vec::new();
    for (most, len) in [(2, 2), (100, 4), (1500, 1500), (1500, 500), (0, 0)] {
        let piece = rope.take(most, &mut pool);
        assert_eq!(piece.len(), len);
        if len >= 500 {
            assert!(packet.as_ptr_range().contains(&piece.as_ptr()), "no copy");
        }
        taken.extend_from_slice(&piece);
        check(&rope, &pool);
    }
    while !rope.is_empty() {
        taken.extend_from_slice(&rope.take(3000, &mut pool));
        check(&rope, &pool);
    }
    assert_eq!(taken, [b"inline", &packet[..], &[7; 5000]].concat());
    assert!(rope.take(1, &mut pool).is_empty());
}

#[test]
fn a_buffer_has_the_least_size_that_is_enough() {
    for size in 0..=100_000 {
        let least = SIZES.iter().position(|room| *room >= size).unwrap_or(SIZES.len() - 1);
        assert_eq!(class(size), least, "{size}");
    }
}

#[test]
fn small_bytes_take_no_buffer_and_the_pool_keeps_a_bounded_number() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    rope.push_slice(&[1; 64], &mut pool);
    rope.push_slice(&[1; INLINE - 64], &mut pool);
    assert_eq!(rope.0.as_ref().unwrap().chunks.capacity(), 0);
    assert!(size_of::<Queue>() <= INLINE + 72);
    rope.push_slice(&[1], &mut pool);
    let Bulk::Own(second, _) = &rope.0.as_ref().unwrap().chunks[0].bulk else { panic!("it was copied") };
    assert_eq!(second.capacity(), 256);
    for _ in 0..100 {
        rope.push_slice(&[2; 60_000], &mut pool);
    }
    assert!(rope.0.as_ref().unwrap().chunks.len() < 100 && rope.len() == 6_000_257);
    rope.release(usize::MAX, &mut pool);
    let kept: usize = pool.buffers.iter().flatten().map(BytesMut::capacity).sum();
    assert!(kept <= SIZES.len() * Pool::KEPT && kept >= Pool::KEPT, "{kept}");
}

#[test]
fn the_pool_keeps_a_bounded_number_of_queues_and_no_long_one() {
    let mut pool = Pool::default();
    let mut ropes = vec![Rope::default(); Pool::KEPT_QUEUES + 10];
    ropes.iter_mut().for_each(|rope| rope.push_slice(&[1], &mut pool));
    ropes.iter_mut().for_each(|rope| rope.release(1, &mut pool));
    assert_eq!(pool.queues.len(), Pool::KEPT_QUEUES);
    let mut rope = Rope::default();
    let (large, count) = (Bytes::from(vec![0; SMALL]), Pool::LONGEST_QUEUE + 1);
    (0..count).for_each(|_| rope.push_bytes(large.clone(), &mut pool));
    assert_eq!(pool.queues.len(), Pool::KEPT_QUEUES - 1);
    rope.release(usize::MAX, &mut pool);
    assert_eq!(pool.queues.len(), Pool::KEPT_QUEUES - 1);
}

#[test]
fn a_queue_that_is_never_empty_does_not_grow() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    let large = Bytes::from(vec![0; SMALL]);
    (0..10).for_each(|_| rope.push_bytes(large.clone(), &mut pool));
    for _ in 0..10_000 {
        rope.push_bytes(large.clone(), &mut pool);
        rope.release(SMALL, &mut pool);
        check(&rope, &pool);
    }
    let capacity = rope.0.as_ref().unwrap().chunks.capacity();
    assert!(capacity <= 32, "{capacity}");
    rope.push_slice(&[1; 100], &mut pool);
    rope.release(10 * SMALL, &mut pool);
    // Later small pieces go to small buffers, and these are reused.
    for _ in 0..10_000 {
        rope.push_slice(&[1; 100], &mut pool);
        rope.release(100, &mut pool);
        check(&rope, &pool);
    }
    assert!(rope.0.as_ref().unwrap().chunks.capacity() <= capacity);
    let pooled: usize = pool.buffers.iter().map(Vec::len).sum();
    assert!(pooled <= 3, "{pooled}");
}

#[test]
fn a_shared_buffer_returns_to_the_pool_once_no_device_has_a_slice_of_it() {
    const LARGEST: usize = SIZES[SIZES.len() - 1];
    let mut rope = Rope::default();
    // Writes a buffer full and shares it, in one part or in two. Returns the slices.
    let fill = |rope: &mut Rope, pool: &mut Pool, first: usize| {
        let mut slices = Vec::new();
        for (from, to) in [(0, first), (first, LARGEST)] {
            rope.push_slice(&vec![7; to - from], pool);
            assert!(rope.share(from, to - from, &mut slices));
            check(rope, pool);
        }
        slices
    };
    for first in [LARGEST, 40_000] {
        let mut pool = Pool::default();
        let slices = fill(&mut rope, &mut pool, first);
        rope.release(LARGEST, &mut pool);
        assert_eq!(pool.buffers[SIZES.len() - 1].len(), 0, "the device has it");
        assert!(slices.iter().all(|slice| slice.iter().all(|byte| *byte == 7)));
        drop(slices);
        let place = fill(&mut rope, &mut pool, first)[0].as_ptr();
        rope.release(LARGEST, &mut pool);
        check(&rope, &pool);
        assert_eq!(pool.buffers[SIZES.len() - 1].len(), 1);
        assert_eq!(fill(&mut rope, &mut pool, first)[0].as_ptr(), place, "it is used again");
        rope.release(LARGEST, &mut pool);
    }
}

#[test]
fn the_rest_of_a_shared_buffer_is_filled_and_all_of_it_counts_until_its_last_byte_is_gone() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    rope.push_slice(&[1; 40_000], &mut pool);
    let (held, mut slices) = (rope.held(), Vec::new());
    assert!(rope.share(0, 40_000, &mut slices));
    let place = slices[0].as_ptr();
    rope.push_slice(&[2; 20_000], &mut pool);
    let mut more = Vec::new();
    assert!(rope.share(40_000, 20_000, &mut more));
    assert_eq!(more[0].as_ptr(), place.wrapping_add(40_000), "in the same buffer");
    assert_eq!(slices.concat(), [1; 40_000]);
    assert!((held..held + 1000).contains(&rope.held()));
    rope.release(59_000, &mut pool);
    check(&rope, &pool);
}

#[test]
fn bytes_in_too_many_places_are_not_shared() {
    let (mut rope, mut pool) = (Rope::default(), Pool::default());
    let piece = Bytes::from(vec![7; SMALL]);
    (0..SLICES).for_each(|_| rope.push_bytes(piece.clone(), &mut pool));
    let mut slices = Vec::new();
    assert!(!rope.share(0, SLICES * SMALL, &mut slices));
    assert!(slices.is_empty());
    assert!(rope.share(0, (SLICES - 1) * SMALL, &mut slices));
    assert_eq!(slices.len(), SLICES - 1);
}

proptest! {
    #[test]
    fn behaves_as_a_vector_would(
        steps in proptest::collection::vec(
            (0u8..7, prop_oneof![0usize..9000, 0usize..300], any::<u8>()),
            1..60,
        ),
    ) {
        let (mut rope, mut pool, mut oracle) = (Rope::default(), Pool::default(), Vec::new());
        // Slices that a device still has, and the bytes that they had at first.
        let mut lent = Vec::new();
        for (what, size, seed) in steps {
            let data: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            match what {
                0 => { rope.push_slice(&data, &mut pool); oracle.extend_from_slice(&data); }
                1 => { oracle.extend_from_slice(&data); rope.push_bytes(Bytes::from(data), &mut pool); }
                2 => { let n = size.min(oracle.len()); rope.release(n, &mut pool); oracle.drain(..n); }
                3 => {
                    let (packet, from) = (Bytes::from(data), usize::from(seed).min(size));
                    oracle.extend_from_slice(&packet[from..]);
                    rope.push_payload(&packet[from..], Some(&packet), &mut pool);
                }
                4 => {
                    let (mut out, count) = (data, size.min(oracle.len()));
                    prop_assert_eq!(rope.read(&mut out, &mut pool), count);
                    prop_assert_eq!(&out[..count], &oracle[..count]);
                    oracle.drain(..count);
                }
                5 => {
                    let from = size.min(oracle.len());
                    let count = (usize::from(seed) * 370).min(oracle.len() - from);
                    let mut slices = Vec::new();
                    if rope.share(from, count, &mut slices) {
                        prop_assert!(slices.concat() == oracle[from..from + count]);
                        lent.push((slices.concat(), slices));
                    }
                    lent.drain(..lent.len() / 4);
                }
                _ => {
                    let from = size.min(oracle.len());
                    let count = (usize::from(seed) * 37).min(oracle.len() - from);
                    let (mut out, mut sum, mut expected) = (vec![0; count], Sum::new(), Sum::new());
                    rope.copy_out(from, &mut out, &mut sum);
                    prop_assert_eq!(&out, &oracle[from..from + count]);
                    expected.add_bytes(&out);
                    prop_assert_eq!(sum.finish(), expected.finish());
                    // A peek for more bytes than there are returns fewer.
                    let mut out = vec![0; count + 100];
                    let there = out.len().min(oracle.len() - from);
                    prop_assert_eq!(rope.peek(from, &mut out), there);
                    prop_assert_eq!(&out[..there], &oracle[from..from + there]);
                }
            }
            check(&rope, &pool);
            prop_assert_eq!(rope.len(), oracle.len());
            prop_assert_eq!(rope.is_empty(), oracle.is_empty());
            prop_assert_eq!(rope.peek(oracle.len() + 1, &mut [0]), 0);
            let mut all = vec![0; oracle.len() + 3];
            prop_assert_eq!(rope.peek(0, &mut all), oracle.len());
            prop_assert_eq!(&all[..oracle.len()], &oracle[..]);
        }
        lent.iter().for_each(|(bytes, slices)| assert!(slices.concat() == *bytes));
    }
}
