-- How far the reading of a project's whole contents is, so that it goes on where it was.
-- A running older version sees a new table.

create table sync.pull_progress (
  table_name text primary key,
  -- The key of the last row that is here; null where none is yet.
  last_id uuid,
  last_time timestamptz,
  rows_pulled bigint not null default 0,
  rows_total bigint not null,
  is_done boolean not null default false
);

alter table sync.pull_progress enable row level security;
create policy app on sync.pull_progress to pugmark_app using (true) with check (true);
grant select, insert, update, delete on sync.pull_progress to pugmark_app;
