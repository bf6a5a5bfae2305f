//! Copies of strided tensors.

use crate::{Buffer, parallel::for_each};

/// Tensors with at least this many values are copied in parallel.
const MIN_PARALLEL: usize = 1 << 16;

/// A row-major copy of a strided tensor. The tensor's first value is `storage[offset]`.
pub(crate) fn to_contiguous(storage: &[f32], offset: usize, shape: &[usize], strides: &[isize]) -> Buffer {
    // A single image is divided into its rows.
    let ones = shape.iter().take_while(|&&size| size == 1).count().min(shape.len().saturating_sub(2));
    let (shape, strides) = (&shape[ones..], &strides[ones..]);
    let mut out = Buffer::new(shape.iter().product());
    let Some((&first, inner)) = shape.split_first().filter(|_| !out.is_empty()) else {
        if let [only] = &mut out[..] {
            *only = storage[offset];
        }
        return out;
    };
    let (len, serial) = (out.len() / first, out.len() < MIN_PARALLEL);
    for_each(out.chunks_mut(len).enumerate(), serial, |(i, out)| {
        copy(storage, offset as isize + i as isize * strides[0], inner, &strides[1..], out);
    });
    out
}

fn copy(storage: &[f32], at: isize, shape: &[usize], strides: &[isize], out: &mut [f32]) {
    match (shape, strides) {
        ([], _) => out[0] = storage[at as usize],
        ([_], [1]) => out.copy_from_slice(&storage[at as usize..][..out.len()]),
        ([_], [stride]) => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = storage[(at + i as isize * stride) as usize];
            }
        }
        // A transposed matrix, such as a channels-first image. Copying one column at a time reads contiguous memory.
        ([_, columns], [1, stride]) if *columns > 1 => {
            for c in 0..*columns {
                let from = &storage[(at + c as isize * stride) as usize..];
                out[c..].iter_mut().step_by(*columns).zip(from).for_each(|(out, x)| *out = *x);
            }
        }
        ([rows, inner @ ..], [stride, strides @ ..]) => {
            let len = out.len() / rows;
            for (i, out) in out.chunks_mut(len).enumerate() {
                copy(storage, at + i as isize * stride, inner, strides, out);
            }
        }
        _ => unreachable!("every dimension has a stride"),
    }
}

#[cfg(test)]
mod tests {
    use super::to_contiguous;

    #[test]
    fn strided_tensors_are_copied_in_row_major_order() {
        let storage: Vec<f32> = (0..200_000).map(|i| i as f32).collect();
        for (offset, shape, strides) in [
            (0, vec![], vec![]),
            (3, vec![4], vec![2isize]),
            (0, vec![3, 5], vec![1, 3]),
            (7, vec![2, 3, 4], vec![12, 1, 3]),
            (100, vec![4, 3], vec![-5, 1]),
            (1, vec![2, 4, 5, 3], vec![60, 5, 1, 20]),
            (1, vec![20, 40, 40, 3], vec![4800, 40, 1, 1600]),
            (2, vec![1, 200, 150, 3], vec![90_000, 150, 1, 30_000]),
            (0, vec![300, 600], vec![1, 300]),
            (5, vec![0, 3], vec![3, 1]),
        ] {
            let got = to_contiguous(&storage, offset, &shape, &strides);
            let count: usize = shape.iter().product();
            assert_eq!(got.len(), count);
            for i in 0..count {
                let (mut rest, mut at) = (i, offset as isize);
                for (size, stride) in shape.iter().zip(&strides).rev() {
                    at += (rest % size) as isize * stride;
                    rest /= size;
                }
                assert_eq!(got[i], storage[at as usize], "{shape:?} {strides:?} at {i}");
            }
        }
    }
}
