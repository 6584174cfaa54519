use super::*;

#[test]
fn names_follow_the_conventions_and_known_labels_are_there_from_the_start() {
    let metrics = Metrics::new();
    metrics.attempt(Verdict::Accepted);
    metrics.oes_request(Operation::Update, Some(200), Duration::from_millis(3));
    metrics.rate_limit_waited(Operation::Read, Duration::from_millis(30));
    metrics.job_ended(JobType::Allocation, Outcome::Cleared, Duration::from_millis(40));
    let snapshot = Snapshot {
        released_unconfirmed: (2, Some(TimestampMs::from_millis(1_000))),
        approvals_waiting: (3, Some(TimestampMs::from_millis(31_000))),
        verification_waiting: 4,
        at_risk: vec![("BTC".parse().unwrap(), "150000".parse().unwrap())],
        outbox_waiting: (1, Some(TimestampMs::from_millis(51_000))),
        overdrawn: 4,
        free_bytes: vec![("book", 5_000_000_000)],
        ..Snapshot::default()
    };
    let text = metrics.encode(&snapshot, TimestampMs::from_millis(61_000)).unwrap();
    for line in [
        "settled_attempts_total{result=\"accepted\"} 1",
        "settled_attempts_total{result=\"no_reply\"} 0",
        "settled_jobs{state=\"parked\",type=\"allocation\"} 0",
        "settled_released_unconfirmed_jobs 2",
        "settled_released_unconfirmed_oldest_age_seconds 60.0",
        "settled_approvals_waiting_jobs 3",
        "settled_approvals_waiting_oldest_age_seconds 30.0",
        "settled_oes_requests_total{operation=\"update\",status=\"2xx\"} 1",
        "settled_oes_request_duration_seconds_count{operation=\"update\"} 1",
        "settled_oes_request_duration_seconds_count{operation=\"read\"} 0",
        "settled_rate_limit_wait_seconds_count{operation=\"read\"} 1",
        "settled_job_duration_seconds_count{type=\"allocation\",outcome=\"cleared\"} 1",
        "settled_open_jobs_quantity{currency=\"BTC\"} 150000.0",
        "settled_outbox_oldest_age_seconds 10.0",
        "settled_overdrawn_balances 4",
        "settled_volume_free_bytes{kind=\"book\"} 5000000000.0",
        "settled_broker_sessions_lost_total{kind=\"consumer\"} 0",
        "settled_sender_stopped{cause=\"token_refused\"} 0",
        "settled_oes_reads_total{purpose=\"verify\"} 0",
        "settled_jobs_refused_total 0",
        "settled_trace_spans_total{result=\"dropped_queue_full\"} 0",
        "settled_verification_waiting_jobs 4",
        "settled_messages_refused_total{code=\"not_as_at_oes\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
