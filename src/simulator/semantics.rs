//! The vendor's open questions as switches: each enum is one thing that the documentation leaves unsaid, each variant one answer.
//!
//! A worker is right only if it is right under all of them, so every enum has `ALL` for tests to iterate. [`Semantics::default`]
//! takes the likeliest of each (inferred, nowhere confirmed).

use jiff::SignedDuration;

/// How the other side behaves where its documentation is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Semantics {
    /// What a POST on a taken rule id does.
    pub post_on_existing: PostOnExisting,
    /// What a PUT does with the fields that it does not name.
    pub put: Put,
    /// Which query parameter selects rows by the rule's id.
    pub filter: Filter,
    /// How the HTTP status relates to the `code` of the body.
    pub http_status: HttpStatus,
    /// Whether rules may be read.
    pub reading_rules: ReadingRules,
    /// Whether the rows of rules are whole.
    pub rule_rows: RuleRows,
    /// What becomes of a rule that a device has taken.
    pub taken_rule: TakenRule,
    /// The most rows that a read of rules returns, whatever it asks for; `None` for no bound.
    pub rule_page_max: Option<usize>,
    /// Whether an attempt that failed counts as an execution.
    pub failed_attempt: FailedAttempt,
    /// Whether results grow or are rewritten.
    pub results: Results,
    /// The order in which rows are returned.
    pub row_order: RowOrder,
    /// Whether an upgrade under way shows as a row.
    pub incomplete: Incomplete,
    /// Which moment the `ts` of a result is.
    pub result_time: ResultTime,
    /// How long a result takes from the device's report to its row (the writer is asynchronous, inferred).
    pub result_delay: SignedDuration,
    /// The description that it serves of itself.
    pub open_api: OpenApi,
    /// How far the NBI's clock is ahead of the caller's; seen in `ts` and in the `Date` header.
    pub clock_offset: SignedDuration,
}

/// Defines a switch: an enum with the list of its variants.
macro_rules! switch {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}

switch! {
    /// What a POST on a taken rule id does.
    PostOnExisting {
        /// The row is replaced, and armed anew.
        #[default]
        Overwrite,
        /// Code 409, the row stays.
        Conflict,
        /// A second row of the same id.
        Duplicate,
    }
}

switch! {
    /// What a PUT does with the fields that it does not name.
    Put {
        /// They stay.
        #[default]
        Merge,
        /// They are dropped.
        Replace,
    }
}

switch! {
    /// Which query parameter selects rows by the rule's id, on both storages.
    ///
    /// A name that is not honoured is an equality filter on some other column and finds no row, except under
    /// [`Filter::Ignored`].
    Filter {
        /// `id` and `campaignid` alike.
        #[default]
        Either,
        /// `id` only.
        Id,
        /// `campaignid` only.
        CampaignId,
        /// None: reads return every row, PUT and DELETE act on the row that the body names, without a body on **all** rows.
        Ignored,
    }
}

switch! {
    /// How the HTTP status relates to the `code` of the body.
    HttpStatus {
        /// Always 200 around any code.
        #[default]
        Always200,
        /// The code itself; a 204 then has no body.
        SameAsCode,
    }
}

switch! {
    /// Whether rules may be read.
    ReadingRules {
        /// They may.
        #[default]
        Allowed,
        /// HTTP 403.
        Forbidden403,
        /// HTTP 405.
        MethodNotAllowed405,
        /// HTTP 501.
        NotImplemented501,
        /// A read finds none, whatever stands there: writes alone reach them.
        NeverFound404,
    }
}

switch! {
    /// Whether the rows of rules are whole.
    RuleRows {
        /// As they were written.
        #[default]
        Whole,
        /// Without `enabled`, so that whether one is armed cannot be read.
        WithoutEnabled,
    }
}

switch! {
    /// What becomes of a rule that a device has taken.
    TakenRule {
        /// It stays as it is.
        #[default]
        Stays,
        /// It is disabled.
        TurnsOff,
    }
}

switch! {
    /// Whether an attempt that failed counts as an execution.
    FailedAttempt {
        /// It does: the device does not try again by itself.
        #[default]
        UsesUpExecution,
        /// It does not: the device tries again at its next session while the rule is armed.
        KeepsExecution,
    }
}

switch! {
    /// Whether results grow or are rewritten.
    Results {
        /// One row per attempt.
        #[default]
        RowPerAttempt,
        /// One row per rule and device, rewritten in place: its `id` stays.
        RowRewritten,
    }
}

switch! {
    /// The order in which rows are returned.
    RowOrder {
        /// As they were written.
        #[default]
        OldestFirst,
        /// The reverse.
        NewestFirst,
        /// Another order on each read.
        Shuffled,
    }
}

switch! {
    /// Whether an upgrade under way shows as a row.
    Incomplete {
        /// It does not.
        #[default]
        NoRow,
        /// A row with code 500 and no fault code, rewritten when the attempt ends.
        UndecidedRow,
    }
}

switch! {
    /// Which moment the `ts` of a result is.
    ResultTime {
        /// When the row was last written.
        #[default]
        End,
        /// When the attempt began: a row that is rewritten when it ends keeps its `ts`.
        Begin,
    }
}

switch! {
    /// The description that it serves of itself.
    OpenApi {
        /// Swagger 2, whole.
        #[default]
        Swagger2,
        /// `OpenAPI` 3, whole, with templates in paths.
        OpenApi3,
        /// One that lacks calls, fields and a filter.
        Incomplete,
        /// None.
        Absent,
    }
}
