//! The JSON files of a sweep and of inspections, and the page and tables drawn from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use residual_lab::{Inspection, SweepResults};
use residual_report::{InspectionView, Report, sweep_markdown};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(results) = serde_json::from_slice::<SweepResults>(bytes) {
        let _ = sweep_markdown(&results);
        let html = Report::of(vec![results], Vec::new()).html();
        assert!(!html.contains('\0') && html.len() < 1_000_000 + 10_000 * bytes.len());
    }
    if let Ok(inspection) = serde_json::from_slice::<Inspection>(bytes)
        && inspection.is_complete()
    {
        let _ = InspectionView::of(&inspection).csv();
        let html = Report::of(Vec::new(), vec![inspection]).html();
        assert!(!html.contains('\0') && html.len() < 1_000_000 + 10_000 * bytes.len());
    }
});
