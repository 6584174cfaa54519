//! What is done about a command that fails even alone.

use tokio::sync::oneshot;

use super::{
    Feeding, Recording, Writer, WriterError,
    action::Acted,
    command::{Acts, Command},
};
use crate::{
    domain::{
        ids::{JobSeq, RecordId},
        reply::Verdict,
        state::{Doubt, ParkReason},
    },
    pipeline::{budget::SendPermit, read::ReadResult, verify::FirstRead},
};

impl Writer {
    /// Does what is to be done about a command that fails even alone.
    pub(super) async fn refuse(
        &mut self,
        command: Command,
        reason: String,
        due: Option<JobSeq>,
    ) -> Result<(), WriterError> {
        let doing = command.name();
        tracing::error!(command = doing, reason, "a command was refused");
        match command {
            Command::Record { intake, arrived, record_only: false, answer } => {
                let command = Command::Record { intake, arrived, record_only: true, answer };
                Box::pin(self.execute(vec![command])).await
            }
            Command::Record { answer, .. } => {
                let _waiting = answer.send(Recording::Refused(reason));
                Ok(())
            }
            Command::ApplyBook { answer, .. } => {
                let _waiting = answer.send(Err(reason));
                Ok(())
            }
            Command::Feed { answer, .. } => {
                let _waiting = answer.send(Feeding::Refused(reason));
                Ok(())
            }
            Command::Act { .. }
            | Command::Requeue { .. }
            | Command::SetSwitch { .. }
            | Command::AcceptSnapshots { .. } => self.refuse_operator(command, reason).await,
            Command::Archive { answer, .. }
            | Command::NoteRun { answer, .. }
            | Command::NoteAlerts { answer, .. } => {
                let _waiting = answer.send(Err(reason));
                Ok(())
            }
            // The answer cannot be booked, so it counts as one that tells nothing, and the record is
            // read back. If not even that can be written, the machine cannot be trusted.
            Command::Finish { mut reply, answer }
                if reply.verdict != Verdict::Doubtful(Doubt::OddAnswer) =>
            {
                reply.verdict = Verdict::Doubtful(Doubt::OddAnswer);
                reply.end.result = reply.verdict.as_str();
                reply.end.detail = Some(format!("the answer could not be booked: {reason}"));
                Box::pin(self.execute(vec![Command::Finish { reply, answer }])).await
            }
            Command::SettleReads { results, answer } => {
                self.settle_one_by_one(results, reason).await?;
                let _waiting = answer.send(());
                Ok(())
            }
            Command::SettleFirstReads { reads, queue, answer } => {
                self.settle_first_one_by_one(reads, queue, reason).await?;
                let _waiting = answer.send(());
                Ok(())
            }
            // Fewer and fewer jobs, until the one at fault is alone; the loop asks for the rest.
            Command::Prepare { permits, answer, .. } => {
                self.refuse_attempts(permits, answer, reason, due).await
            }
            Command::DecideDue { limit, answer } => {
                if limit > 1 {
                    let limit = limit.div_euclid(2);
                    return Box::pin(self.execute(vec![Command::DecideDue { limit, answer }]))
                        .await;
                }
                self.park_due(due, ParkReason::DecideFailed, doing, reason).await?;
                let _waiting = answer.send(());
                Ok(())
            }
            Command::Quarantine { .. }
            | Command::Finish { .. }
            | Command::Published { .. }
            | Command::StopPreparing { .. }
            | Command::Park { .. } => Err(WriterError::Stuck { doing, reason }),
        }
    }

    /// Says to an operator what could not be done; nobody else is concerned.
    async fn refuse_operator(
        &mut self,
        command: Command,
        reason: String,
    ) -> Result<(), WriterError> {
        match command {
            Command::Act { acts, answer } => {
                let acted = self.act_one_by_one(acts, reason).await?;
                let _waiting = answer.send(acted);
                Ok(())
            }
            Command::Requeue { message, intake, by, record_only: false, answer } => {
                let command = Command::Requeue { message, intake, by, record_only: true, answer };
                Box::pin(self.execute(vec![command])).await
            }
            // The message stays where it is.
            Command::Requeue { answer, .. } => {
                let _waiting = answer.send(Err(reason));
                Ok(())
            }
            Command::SetSwitch { answer, .. } => {
                let _waiting = answer.send(Err(reason));
                Ok(())
            }
            Command::AcceptSnapshots { answer, .. } => {
                let _waiting = answer.send(Err(reason));
                Ok(())
            }
            Command::Record { .. }
            | Command::Quarantine { .. }
            | Command::Prepare { .. }
            | Command::DecideDue { .. }
            | Command::Finish { .. }
            | Command::SettleReads { .. }
            | Command::SettleFirstReads { .. }
            | Command::ApplyBook { .. }
            | Command::Feed { .. }
            | Command::Archive { .. }
            | Command::NoteRun { .. }
            | Command::NoteAlerts { .. }
            | Command::StopPreparing { .. }
            | Command::Published { .. }
            | Command::Park { .. } => Ok(()),
        }
    }

    /// The jobs of an operator's command that failed each by itself, so that only the culprit is left as it
    /// is; nobody else is concerned.
    async fn act_one_by_one(
        &mut self,
        acts: Acts,
        reason: String,
    ) -> Result<Vec<(RecordId, Acted)>, WriterError> {
        let Acts { action, records, by } = acts;
        if let [record] = records.as_slice() {
            return Ok(vec![(*record, Acted::Failed(reason))]);
        }
        let mut acted = Vec::with_capacity(records.len());
        for record in records {
            let (answer, answered) = oneshot::channel();
            let acts = Acts { action, records: vec![record], by: by.clone() };
            Box::pin(self.execute(vec![Command::Act { acts, answer }])).await?;
            // It is answered by now.
            acted.extend(answered.await.unwrap_or_default());
        }
        Ok(acted)
    }

    /// Tries again with half the attempts; of the last one, the job is parked.
    async fn refuse_attempts(
        &mut self,
        mut permits: Vec<SendPermit>,
        answer: oneshot::Sender<()>,
        reason: String,
        due: Option<JobSeq>,
    ) -> Result<(), WriterError> {
        if permits.len() > 1 {
            permits.truncate(permits.len().div_euclid(2));
            let due = None;
            return Box::pin(self.execute(vec![Command::Prepare { permits, due, answer }])).await;
        }
        self.park_due(due, ParkReason::StepFailed, "prepare", reason).await?;
        let _waiting = answer.send(());
        Ok(())
    }

    async fn settle_one_by_one(
        &mut self,
        mut results: Vec<(JobSeq, ReadResult)>,
        reason: String,
    ) -> Result<(), WriterError> {
        if results.len() == 1
            && let Some((job, _)) = results.pop()
        {
            return self.park(job, ParkReason::StepFailed, reason).await;
        }
        for result in results {
            let (answer, _nobody_waits) = oneshot::channel();
            let command = Command::SettleReads { results: vec![result], answer };
            Box::pin(self.execute(vec![command])).await?;
        }
        Ok(())
    }

    async fn settle_first_one_by_one(
        &mut self,
        mut reads: Vec<FirstRead>,
        queue: String,
        reason: String,
    ) -> Result<(), WriterError> {
        if reads.len() == 1
            && let Some(read) = reads.pop()
        {
            return self.park(read.job, ParkReason::DecideFailed, reason).await;
        }
        for read in reads {
            let (answer, _nobody_waits) = oneshot::channel();
            let (reads, queue) = (vec![read], queue.clone());
            let command = Command::SettleFirstReads { reads, queue, answer };
            Box::pin(self.execute(vec![command])).await?;
        }
        Ok(())
    }

    async fn park_due(
        &mut self,
        due: Option<JobSeq>,
        reason: ParkReason,
        doing: &'static str,
        why: String,
    ) -> Result<(), WriterError> {
        match due {
            Some(job) => self.park(job, reason, why).await,
            None => Err(WriterError::Stuck { doing, reason: why }),
        }
    }

    async fn park(
        &mut self,
        job: JobSeq,
        reason: ParkReason,
        why: String,
    ) -> Result<(), WriterError> {
        Box::pin(self.execute(vec![Command::Park { job, reason, why }])).await
    }
}
