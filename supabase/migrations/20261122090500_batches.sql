-- Files that programs hand in and get back, and batches of questions made of them. The reader role sees none of it.
-- A running older version sees new tables.

create table public.files (
  -- "file-" and a UUIDv7 without dashes: sorts by age.
  id text collate "C" primary key,
  -- Name of the key that it belongs to, or local.
  caller text not null,
  filename text not null,
  purpose text not null,
  bytes bigint not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  -- False while its chunks still come in: shown to nobody, and swept where the upload broke off.
  is_whole boolean not null
);
create index files_caller on public.files (caller, id);
create index files_expiring on public.files (expires_at) where expires_at is not null;
create index files_broken_off on public.files (created_at) where not is_whole;

create table public.file_chunks (
  file_id text collate "C" not null references public.files (id) on delete cascade,
  -- From 0, without gaps.
  index integer not null,
  content bytea not null,
  primary key (file_id, index)
);
-- Compressing would take longer than everything else that is done with a file.
alter table public.file_chunks alter column content set storage external;

create table public.batches (
  -- "batch_" and a UUIDv7 without dashes.
  id text collate "C" primary key,
  caller text not null,
  endpoint text not null,
  -- No foreign key: once a batch is over, its input may go.
  input_file_id text not null,
  completion_window text not null,
  metadata jsonb,
  output_expires_after_s integer,
  status text not null check (status in (
    'validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled'
  )),
  -- Of its lines; null until they were read.
  model text,
  -- Why it failed: [{code, message, param, line}].
  errors jsonb,
  output_file_id text,
  error_file_id text,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  in_progress_at timestamptz,
  finalizing_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  expired_at timestamptz,
  cancelling_at timestamptz,
  cancelled_at timestamptz,
  -- Kept up with each result, so that looking at a batch reads one row.
  lines_total integer not null default 0,
  lines_completed integer not null default 0,
  lines_failed integer not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0
);
create index batches_caller on public.batches (caller, id);
create index batches_under_way on public.batches (id)
  where status in ('validating', 'in_progress', 'finalizing', 'cancelling');

-- The lines of batches under way; they go when the result files are written.
create table public.batch_lines (
  batch_id text collate "C" not null references public.batches (id) on delete cascade,
  -- In the input file, from 1.
  line integer not null,
  custom_id text not null,
  -- JSON as it came: in a schema the order of keys counts, and jsonb would lose it.
  body text not null,
  state text not null default 'pending' check (state in ('pending', 'running', 'done')),
  -- Which server runs it, and until when that is believed without hearing from it.
  leased_by uuid,
  leased_until timestamptz,
  status_code integer,
  request_id text,
  -- JSON of the body that was answered.
  response text,
  primary key (batch_id, line)
);
create index batch_lines_pending on public.batch_lines (batch_id, line) where state = 'pending';
create index batch_lines_running on public.batch_lines (leased_until) where state = 'running';

alter table public.files enable row level security;
alter table public.file_chunks enable row level security;
alter table public.batches enable row level security;
alter table public.batch_lines enable row level security;

create policy app on public.files to pugmark_app using (true) with check (true);
create policy app on public.file_chunks to pugmark_app using (true) with check (true);
create policy app on public.batches to pugmark_app using (true) with check (true);
create policy app on public.batch_lines to pugmark_app using (true) with check (true);

grant select, insert, update, delete
  on public.files, public.file_chunks, public.batches, public.batch_lines to pugmark_app;
