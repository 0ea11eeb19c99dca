-- What a station remembers of the files of photos: which are here, and which are in the Storage of its project.
-- A running older version sees new tables, and a column that it does not use.

create table sync.photo_files (
  photo_id uuid primary key references public.photos (id) on delete cascade,
  is_here boolean not null,
  -- Of one that is not: how many times the project had none, and when to ask again.
  attempts integer not null default 0,
  ask_at timestamptz not null default now()
);

-- Outlives its photo, until the object is gone as well.
create table sync.photo_objects (
  photo_id uuid primary key,
  bucket text not null,
  name text not null,
  -- Null: sending was begun, and nobody knows how it ended.
  sent_at timestamptz
);

-- Where the mirror keeps photos, as its service says at its start; null where it keeps none.
alter table sync.state add column photos_bucket text;

-- photo: a file that the project refuses, or that is not what its row says.
alter table sync.parked_rows drop constraint parked_rows_direction_check;
alter table sync.parked_rows add constraint parked_rows_direction_check
  check (direction in ('push', 'pull', 'inbox', 'photo'));

alter table sync.photo_files enable row level security;
alter table sync.photo_objects enable row level security;
create policy app on sync.photo_files to pugmark_app using (true) with check (true);
create policy app on sync.photo_objects to pugmark_app using (true) with check (true);
grant select, insert, update, delete on sync.photo_files, sync.photo_objects to pugmark_app;

-- What the object of a photo is called in any project.
create function sync.photo_object_name(photo public.photos) returns text
language sql stable set search_path = ''
return photo.subject_id || '/' || photo.id
  || case photo.media_type when 'image/jpeg' then '.jpg' when 'image/png' then '.png' else '.webp' end;

-- A photo that is deleted here is to go from the project, also one that another station sent and this one never fetched.
create function sync.note_photo_deleted() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into sync.photo_objects (photo_id, bucket, name)
  select old.id, photos_bucket, sync.photo_object_name(old) from sync.state
  where photos_bucket is not null
    and exists (select from sync.mirrored_tables where table_name = 'photos' and is_recorded)
  on conflict (photo_id) do nothing;
  return null;
end
$$;
create trigger sync_photo_deleted after delete on public.photos for each row
  when (current_setting('pugmark.applying', true) is distinct from 'on')
  execute function sync.note_photo_deleted();

revoke execute on function sync.photo_object_name(public.photos), sync.note_photo_deleted() from public;
grant execute on function sync.photo_object_name(public.photos) to pugmark_app;
