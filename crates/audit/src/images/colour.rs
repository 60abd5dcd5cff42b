//! Colours as they are seen.

/// CIE 1976 L*a*b* of linear Rec. 709 light (0 to 1) under D65: lightness 0 to 100, and the two colour axes, about -128
/// to 128. A distance of about 2.3 is just seen (M. Mahy et al., Color Research and Application 19, 1994).
///
/// CIE 15:2004, 8.2.1. Unlike OKLab it is linear near black, so that the noise of a black area stays small.
pub(super) fn lab([r, g, b]: [f32; 3]) -> [f32; 3] {
    let x = (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b;
    let z = (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83;
    let [x, y, z] = [x, y, z].map(compressed);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn compressed(t: f32) -> f32 {
    const EDGE: f32 = 216.0 / 24_389.0;
    if t > EDGE { t.cbrt() } else { (24_389.0 / 27.0 * t + 16.0) / 116.0 }
}

/// The light (0 to 1) of every sRGB sample, IEC 61966-2-1.
pub(super) fn light() -> [f32; 256] {
    let mut light = [0.0; 256];
    for (sample, light) in light.iter_mut().enumerate() {
        let v = sample as f32 / 255.0;
        *light = if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
    }
    light
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_have_the_known_coordinates() {
        // B. Lindbloom's calculator, sRGB, D65.
        for (rgb, expected) in [
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([255, 0, 0], [53.24, 80.09, 67.20]),
            ([0, 0, 255], [32.30, 79.19, -107.86]),
            ([0, 255, 0], [87.73, -86.18, 83.18]),
            ([119, 119, 119], [50.03, 0.0, 0.0]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
        ] {
            let found = lab(rgb.map(|v: usize| light()[v]));
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 0.05), "{rgb:?}: {found:?}");
        }
    }
}
